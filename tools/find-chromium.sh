#!/usr/bin/env bash
# Prints the path of the browser for the end-to-end tests: $CHROMIUM, otherwise the packaged
# Chromium or Chrome. Chromium from a snap is excluded, because it cannot read the clips that the
# tests write to /tmp.
set -euo pipefail

for candidate in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/google-chrome-stable /opt/google/chrome/chrome; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
        echo "$candidate"
        exit 0
    fi
done
exit 1
