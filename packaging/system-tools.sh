#!/bin/sh
# Install the programs that the system tests drive, as far as they are missing.
set -eu

# Where sshd lives, also for those who are not root.
PATH=$PATH:/usr/sbin:/sbin

missing=
need() { # program, package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need sshd openssh-server
need chromium chromium
need curl curl
need systemd-analyze systemd
need systemd-nspawn systemd-container
need debootstrap debootstrap
need lintian lintian
need strip binutils
need ip iproute2
need strace strace
need promtool prometheus
# A library, so no command tells: it gives sshd a login by password without a real account.
ls /usr/lib/*/libnss_wrapper.so >/dev/null 2>&1 || missing="$missing libnss-wrapper"

if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "The system tests need$missing, and only root can install that." \
        "Ask root for: apt-get install$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "The system tests need$missing. Install that with this machine's own package manager." >&2
    exit 1
fi
echo "Installing for the system tests:$missing"
$as_root apt-get -qq update
# What apt tells of its progress is of no use here; what goes wrong comes on the other stream.
packages=$(echo "$missing" | sed 's/ prometheus//')
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # one word per package
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --yes --no-install-recommends $packages >/dev/null
fi
# Only the checker is taken out of its package: installed, that would start a Prometheus.
if ! command -v promtool >/dev/null 2>&1; then
    folder=$(mktemp -d)
    chmod 755 "$folder"
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download prometheus)
    dpkg --fsys-tarfile "$folder"/prometheus_*.deb |
        $as_root tar -x -C /usr/local/bin --strip-components=3 ./usr/bin/promtool
    rm -rf "$folder"
fi
