#!/usr/bin/env bash
# Fuzzes every function that parses untrusted bytes, FUZZ_S seconds each (60 by default), with the
# address sanitizer, also in the C sources of openh264. It needs a nightly compiler (rustup
# toolchain install nightly). A finding is written to fuzz/artifacts; when it is fixed, copy it to
# fuzz/regressions.
#
# usage: fuzz.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_FUZZ_VERSION=0.13.2

cargo +nightly --version >/dev/null 2>&1 || { echo "error: fuzzing needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --version "$CARGO_FUZZ_VERSION"
tools/install-packages.sh fuzz

# Compiles the C sources with clang, which matches the sanitizer of the Rust compiler. Build scripts are
# not instrumented.
export CC_x86_64_unknown_linux_gnu=clang CXX_x86_64_unknown_linux_gnu=clang++
export CFLAGS_x86_64_unknown_linux_gnu=-fsanitize=address CXXFLAGS_x86_64_unknown_linux_gnu=-fsanitize=address
# Builds openh264 without assembler, so that the sanitizer sees every access. The program itself is not
# affected.
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
