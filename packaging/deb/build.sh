#!/bin/bash
# Build dist/till-agent_<version>_<architecture>.deb: the program in a virtual environment with all
# that it needs, so that a till installs it without a network, a compiler or an index.
#
# The same commit gives the same bytes: every time is the commit's, every order is sorted, and
# nothing of the building machine stays in it. Needs Debian 12's own python3 (a wheel fits one
# version of Python only), dpkg-deb and binutils; the tools of Python come from .venv (make deb).
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=$PWD/.venv/bin
python=/usr/bin/python3
stage=$PWD/build/deb/root
wheels=$PWD/build/deb/wheels
home=usr/lib/till-agent # where it will live, and the virtual environment with it
packages=$stage/$home/lib/python3.11/site-packages

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "This needs Debian 12's own Python 3.11 at $python, because the package is made for it." \
        "Nothing was built." >&2
    exit 1
}
command -v dpkg-deb >/dev/null && command -v strip >/dev/null || {
    echo "This needs dpkg-deb and strip: apt-get install dpkg binutils. Nothing was built." >&2
    exit 1
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 TZ=UTC
umask 022
rm -rf build/deb build/lib build/bdist.*
mkdir -p "$stage" "$wheels" dist

# --- the program --------------------------------------------------------------------------------

"$python" -m venv --without-pip "$stage/$home"
install_into() {
    "$tools/pip" --disable-pip-version-check --quiet --no-input \
        --python "$stage/$home/bin/python3" install --no-compile --no-deps "$@"
}
install_into --require-hashes --only-binary :all: -r requirements.lock
"$tools/pip" --disable-pip-version-check --quiet wheel --no-deps --no-build-isolation \
    --wheel-dir "$wheels" .
install_into "$wheels"/till_agent-*.whl
version=$("$stage/$home/bin/python3" -IB -c 'import agent; print(agent.__version__)')
architecture=$(dpkg --print-architecture)

# Scripts of the libraries and of the environment name this folder, and a till runs none of them.
find "$stage/$home/bin" -mindepth 1 ! -name 'python3*' -delete
ln -sfn /usr/bin/python3 "$stage/$home/bin/python3"
rm -f "$stage/$home/bin/python3.11"
rm -rf "$stage/$home/include" "$stage/$home/share"
printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$stage/$home/pyvenv.cfg"
rm -f "$packages"/*.dist-info/direct_url.json "$packages"/*.dist-info/RECORD
# Sources of compiled modules and other people's tests.
find "$packages" -type f \( -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyx' \
    -o -name '*.pxi' -o -name '*.pyc' \) -delete
find "$packages" -name '*.py' -exec sed -i '1{/^#!/d}' {} + # modules, not scripts
rm -rf "$packages"/lxml/includes "$packages"/lxml/isoschematron/resources
find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -name '*.so*' -type f -exec strip --strip-unneeded {} +

install -D -m 755 packaging/deb/till-agent "$stage/usr/bin/till-agent"

# --- what belongs to the machine -----------------------------------------------------------------

install -D -m 644 systemd/till-agent.service "$stage/lib/systemd/system/till-agent.service"
install -D -m 644 systemd/till-agent.sysusers "$stage/usr/lib/sysusers.d/till-agent.conf"
install -D -m 644 agent.toml.example "$stage/etc/till-agent/agent.toml"

mkdir -p "$stage/usr/share/bash-completion/completions" "$stage/usr/share/zsh/vendor-completions"
"$tools/shtab" --shell bash --prog till-agent agent.commands.parser \
    >"$stage/usr/share/bash-completion/completions/till-agent"
"$tools/shtab" --shell zsh --prog till-agent agent.commands.parser \
    >"$stage/usr/share/zsh/vendor-completions/_till-agent"
mkdir -p "$stage/usr/share/man/man1"
"$tools/argparse-manpage" --module agent.commands --function parser --prog till-agent \
    --project-name till-agent --version "$version" \
    --description "a store-and-forward agent for shop tills" \
    --manual-title "User Commands" --author "the till-agent project" \
    --url "file:///usr/share/doc/till-agent/README.md" |
    gzip -9n >"$stage/usr/share/man/man1/till-agent.1.gz"

doc=$stage/usr/share/doc/till-agent
install -D -m 644 packaging/deb/copyright "$doc/copyright"
printf 'till-agent (%s) stable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' "$version" \
    "$(sed -n 's/^Maintainer: //p' packaging/deb/control)" "$(date -R -d "@$SOURCE_DATE_EPOCH")" |
    gzip -9n >"$doc/changelog.gz"
install -m 644 README.md CHANGELOG.md "$doc/"
(cd docs && find . -type f \( -name '*.md' -o -name '*.png' \) -print0 | sort -z |
    xargs -0 -I{} install -D -m 644 {} "$doc/{}")
for folder in grafana prometheus browser-policies; do
    if [ -d "packaging/$folder" ]; then
        mkdir -p "$doc/examples"
        cp -r "packaging/$folder" "$doc/examples/"
    fi
done
# What is in it, for whoever must know: CycloneDX, without the moment and machine of its making.
"$tools/cyclonedx-py" environment --output-reproducible --output-format JSON \
    --pyproject pyproject.toml "$stage/$home/bin/python3" >"$doc/sbom.cdx.json"

ln -sfn ../../../bin/python3 "$stage/$home/bin/python3" # from here on it works on a till only

# --- the package ---------------------------------------------------------------------------------

mkdir -p "$stage/DEBIAN"
install -D -m 644 packaging/deb/lintian-overrides "$stage/usr/share/lintian/overrides/till-agent"
for script in preinst postinst prerm postrm; do
    sed "s/@VERSION@/$version/g" "packaging/deb/$script" >"$stage/DEBIAN/$script"
    chmod 755 "$stage/DEBIAN/$script"
done
echo /etc/till-agent/agent.toml >"$stage/DEBIAN/conffiles"
(cd "$stage" && find . -path ./DEBIAN -prune -o -type f ! -path './etc/*' -printf '%P\0' | sort -z |
    xargs -0 md5sum >DEBIAN/md5sums)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" \
    -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)/" \
    packaging/deb/control >"$stage/DEBIAN/control"
if grep -rIlF "$PWD" "$stage"; then
    echo "The files above name this machine's folders; the package must not. Nothing was built." >&2
    exit 1
fi
chmod -R u=rwX,go=rX "$stage"
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
package=dist/till-agent_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >/dev/null
echo "$package  $(stat -c %s "$package") bytes  sha256 $(sha256sum "$package" | cut -c1-64)"
