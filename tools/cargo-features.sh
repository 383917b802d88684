#!/usr/bin/env bash
# Prints the flags that cargo needs on this machine. The prebuilt bindings of libvpx exist up to
# 1.13; for a newer version they are generated from its headers during the build.
set -euo pipefail

version=$(pkg-config --modversion vpx 2>/dev/null || echo 0)
if [ "$(printf '%s\n' "$version" 1.14 | sort -V | head -n1)" = 1.14 ]; then
    echo "--features ooblex-codec/generate-bindings"
fi
