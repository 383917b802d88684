#!/usr/bin/env bash
# Downloads the library of ONNX Runtime into .runtime/, once. Without it Ooblex is built with
# rten, which is several times slower; so a failed download causes a warning, not an error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.32.0
library=.runtime/libonnxruntime.so.$version
case "$(uname -s)-$(uname -m)" in
Linux-x86_64) sum=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f ;;
Linux-aarch64) sum=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a ;;
*)
    echo "warning: there is no library of ONNX Runtime to download for $(uname -sm): the models will run on rten, several times slower" >&2
    exit 0
    ;;
esac
is_right() { [ -f "$1" ] && echo "$sum  $1" | sha256sum --check --status; }

if is_right "$library"; then exit 0; fi
if [ -n "${ORT_DYLIB_PATH:-}" ]; then exit 0; fi

mkdir -p .runtime
unpacked=$(mktemp -d .runtime/unpacking.XXXXXX)
trap 'rm -rf "$unpacked"' EXIT
echo "downloading ONNX Runtime $version (28 MB) into .runtime/" >&2
if ! tools/fetch-wheel.sh tools/onnxruntime.txt "manylinux_2_28_$(uname -m)" "$unpacked" \
    "onnxruntime/capi/libonnxruntime.so.$version" onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt; then
    echo "warning: ONNX Runtime could not be downloaded: the models will run on rten, several times slower. Run 'make build' again when there is a connection." >&2
    exit 0
fi
if ! is_right "$unpacked/onnxruntime/capi/libonnxruntime.so.$version"; then
    echo "error: the library in the wheel of ONNX Runtime $version is not the one that tools/fetch-onnxruntime.sh expects; it is not used" >&2
    exit 1
fi
mv "$unpacked/onnxruntime/LICENSE" .runtime/onnxruntime-LICENSE
mv "$unpacked/onnxruntime/ThirdPartyNotices.txt" .runtime/onnxruntime-ThirdPartyNotices.txt
mv "$unpacked/onnxruntime/capi/libonnxruntime.so.$version" "$library"
