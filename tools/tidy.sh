#!/usr/bin/env bash
# Checks that the scripts parse, and that no file contains a home folder or a private key.
set -euo pipefail
cd "$(dirname "$0")/.."

fail=0
for script in tools/*.sh .ci/run deploy/*/*.sh; do bash -n "$script" || fail=1; done
if command -v shellcheck >/dev/null; then shellcheck tools/*.sh .ci/run deploy/*/*.sh || fail=1; fi
if git rev-parse --git-dir >/dev/null 2>&1; then
    if git grep -nIE -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' -e '(^|[^[:alnum:]_.~/-])/(home|Users)/[[:alnum:]]+/' -- ':!tools/tidy.sh' ':!models/licences'; then
        echo "error: the lines above name somebody's home folder or hold a private key" >&2
        fail=1
    fi
fi
exit $fail
