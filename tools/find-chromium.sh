#!/usr/bin/env bash
# Prints the path of the browser for the end-to-end tests: $CHROMIUM, else Chromium or Chrome as their packages install them.
# Chromium from a snap is left out: it can not read the clips that the tests put into /tmp.
set -euo pipefail

for candidate in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/google-chrome-stable /opt/google/chrome/chrome; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
        echo "$candidate"
        exit 0
    fi
done
exit 1
