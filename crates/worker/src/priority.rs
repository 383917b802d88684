//! The priority of threads.

/// Lowers the priority of the calling thread, and of threads that it starts, by this much (`nice`).
/// This is for good: raising it again takes a privilege. Nothing happens where a policy forbids it,
/// or where priorities belong to processes instead of threads; the only cost is speed.
pub fn lower_priority(by: i32) {
    if cfg!(target_os = "linux") {
        _ = rustix::process::nice(by);
    }
}
