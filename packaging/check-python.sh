#!/bin/sh
# Say in one sentence why this Python cannot be used, before pip says it in fifty lines.
set -eu

python=${1:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "There is no '$python' on this machine. Install it: apt-get install python3 python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "till-agent needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1)." \
        "Name another one: make PYTHON=python3.11" >&2
    exit 1
fi
# Debian ships venv apart from Python; without it, ensurepip is missing.
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "'$python' cannot make virtual environments. Install what is missing:" \
        "apt-get install python3-venv" >&2
    exit 1
fi
