//! Entry point for fuzzing: what reads the values that lie in Redis. It takes any bytes and must neither panic nor take memory without bound.

use super::wire::{decode_job, decode_result};

/// Reads bytes as a job and as a result.
pub fn wire(bytes: &[u8]) {
    _ = decode_job(bytes);
    _ = decode_result(bytes);
}
