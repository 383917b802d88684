#!/usr/bin/env bash
# Fails with a remedy if Rust is missing, or too old to read Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    cat >&2 <<MEND
error: Rust is not installed. Install it with

    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y

and run make again.
MEND
    exit 1
fi
found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]; then
    echo "error: Rust $wanted or newer is needed and $(command -v cargo) is $found: run 'rustup update stable' (or install it from https://rustup.rs)" >&2
    exit 1
fi
