#!/usr/bin/env bash
# Installs the Python packages of tests/hostile into .runtime/hostile-venv, once and whenever they
# change, and prints the path of its Python. All packages are pinned by checksum and are wheels, so
# nothing is built.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/.runtime/hostile-venv
requirements=tests/hostile/requirements.txt
made_of=$(python3 --version; sha256sum <"$requirements")

if [ "$(cat "$folder/made-of" 2>/dev/null)" != "$made_of" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: the hostile tests need Python 3.10 or newer; this is $(python3 --version). Run the other suites with: make test SUITES=\"rust sdk e2e deploy\"" >&2
        exit 1
    }
    echo "downloading aiortc and its dependencies into .runtime/hostile-venv" >&2
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    if ! "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: --requirement "$requirements" >&2; then
        echo "error: the Python packages of the hostile tests could not be downloaded from PyPI: run make test again when there is a connection" >&2
        exit 1
    fi
    echo "$made_of" >"$folder/made-of"
fi
echo "$folder/bin/python"
