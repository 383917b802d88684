#!/usr/bin/env bash
# Prints the flags that cargo needs on this machine. The ready-made bindings of libvpx stop at 1.13; for a newer one they are
# made during the build, from its headers.
set -euo pipefail

version=$(pkg-config --modversion vpx 2>/dev/null || echo 0)
if [ "$(printf '%s\n' "$version" 1.14 | sort -V | head -n1)" = 1.14 ]; then
    echo "--features ooblex-codec/generate-bindings"
fi
