#!/usr/bin/env bash
# Fuzzes every reader of outside bytes, FUZZ_S seconds each (60 if not set), with the address sanitizer, also in the C sources of openh264. It needs a nightly
# compiler (rustup toolchain install nightly). A finding is written to fuzz/artifacts; once it is mended, put it into fuzz/regressions.
#
# usage: fuzz.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_FUZZ_VERSION=0.13.2

cargo +nightly --version >/dev/null 2>&1 || { echo "error: fuzzing needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --version "$CARGO_FUZZ_VERSION"
tools/install-packages.sh fuzz

# The compiler of the sanitizer that Rust brings; build scripts are left alone.
export CC_x86_64_unknown_linux_gnu=clang CXX_x86_64_unknown_linux_gnu=clang++
export CFLAGS_x86_64_unknown_linux_gnu=-fsanitize=address CXXFLAGS_x86_64_unknown_linux_gnu=-fsanitize=address
# The program has no part in it, and openh264 without assembler shows the sanitizer every access.
export OPENH264_NO_ASM=1

[ "$#" -gt 0 ] || set -- $(cd fuzz/fuzz_targets && ls -- *.rs | sed 's/\.rs$//')
cargo +nightly fuzz build --release
failed=()
for target in "$@"; do
    echo "== $target"
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --release "$target" "fuzz/corpus/$target" "fuzz/regressions/$target" -- \
        -max_total_time="${FUZZ_S:-60}" -timeout=10 -rss_limit_mb=2048 -detect_leaks=0 -print_final_stats=1 || failed+=("$target")
done
[ "${#failed[@]}" = 0 ] || { echo "error: findings in ${failed[*]}: see fuzz/artifacts" >&2; exit 1; }
