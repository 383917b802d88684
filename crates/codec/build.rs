//! Refuses a build whose H.264 would be three times slower than it should be.
//!
//! openh264 builds without an error when its assembler is missing, and nobody notices until the
//! calls stutter.

use std::process::{Command, Stdio};

const ALLOW: &str = "OOBLEX_ALLOW_SLOW_H264";

fn main() {
    println!("cargo::rerun-if-env-changed={ALLOW}");
    println!("cargo::rerun-if-changed=build.rs");
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64" || arch == "x86");
    let allowed = std::env::var(ALLOW).is_ok_and(|value| value == "1");
    if x86 && !allowed && !nasm_found() {
        println!(
            "cargo::error=openh264 without nasm is three times slower: apt install nasm, \
             then `cargo clean --release -p openh264-sys2` and build again (or set {ALLOW}=1 to accept the slow one)"
        );
    }
}

fn nasm_found() -> bool {
    Command::new("nasm").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
