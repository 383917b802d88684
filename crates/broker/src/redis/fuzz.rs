//! Entry point for fuzzing the decoders of values in Redis. They accept any bytes, and must neither
//! panic nor allocate memory without bound.

use super::wire::{decode_job, decode_result};

/// Decodes the bytes as a job and as a result.
pub fn wire(bytes: &[u8]) {
    _ = decode_job(bytes);
    _ = decode_result(bytes);
}
