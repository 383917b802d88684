#!/usr/bin/env bash
# Prints the flags that cargo needs on this machine.
set -euo pipefail

cd "$(dirname "$0")/.."

# The prebuilt bindings of libvpx exist up to 1.13; for a newer version they are generated from its
# headers during the build.
version=$(pkg-config --modversion vpx 2>/dev/null || echo 0)
if [ "$(printf '%s\n' "$version" 1.14 | sort -V | head -n1)" = 1.14 ]; then
    echo "--features ooblex-codec/generate-bindings"
fi
# Without a library of ONNX Runtime, models run on rten.
if [ -z "${ORT_DYLIB_PATH:-}" ] && ! ls .runtime/libonnxruntime.so.* >/dev/null 2>&1; then
    echo "--features ooblex/rten"
fi
