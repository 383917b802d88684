#!/usr/bin/env bash
# Prints the path of the Firefox for the end-to-end tests: $FIREFOX, otherwise the packaged one. A
# Firefox from a snap is excluded, because it cannot read the film that the tests write to /tmp.
set -euo pipefail

for candidate in "${FIREFOX:-}" /usr/bin/firefox-esr /opt/firefox/firefox /usr/lib/firefox/firefox; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
        echo "$candidate"
        exit 0
    fi
done
exit 1
