#!/usr/bin/env bash
# Checks with the TypeScript compiler that the SDK does what web/sdk/ooblex.d.ts declares.
set -euo pipefail
cd "$(dirname "$0")/../web"

node=$(../tools/fetch-node.sh)
export PATH=$node:$PATH
# npm writes this file at the end of an installation.
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --silent
node_modules/.bin/tsc --project .
