#!/usr/bin/env bash
# Downloads the wheel of a requirements file, verifies its hashes, and unpacks some of its files. It
# installs nothing and does not use any Python environment.
#
# usage: fetch-wheel.sh REQUIREMENTS PLATFORM FOLDER PATTERN...
set -euo pipefail

requirements=$1 platform=$2 folder=$3
shift 3

python=
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "no python3 with pip was found: install python3-pip" >&2
    exit 1
fi

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all: --require-hashes \
    --platform "$platform" --python-version 3.11 --dest "$wheels" --requirement "$requirements"

"$python" - "$wheels" "$folder" "$@" <<'PYTHON'
import fnmatch, pathlib, sys, zipfile

wheels, folder, *patterns = sys.argv[1:]
(wheel,) = pathlib.Path(wheels).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    wanted = [name for name in archive.namelist() if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    archive.extractall(folder, wanted)
PYTHON
