//! Settings of the C library's allocator, from which codecs, models and pictures have their memory.

/// Size in bytes from which glibc maps an allocation from the system and returns it when freed
/// (`M_MMAP_THRESHOLD`). A picture of 640×480 is a little smaller.
#[cfg(target_env = "gnu")]
const FROM_SYSTEM: libc::c_int = 512 * 1024;
/// Free bytes at the end of a heap above which glibc returns them to the system
/// (`M_TRIM_THRESHOLD`).
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 1024 * 1024;

/// Makes the C library return large freed allocations to the system from now on. To be called once,
/// first thing in the program.
///
/// By default glibc raises its thresholds with each large allocation that is freed, and keeps the
/// memory of the most sessions that ran at a time. Other C libraries are left as they are.
pub fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and changes the allocator's own settings under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_SYSTEM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Returns free memory between live allocations to the system, which [`give_back_freed_memory`]
/// leaves. It takes some milliseconds, during which threads that allocate may wait.
pub fn give_back_fragments() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and gives back pages that no allocation uses, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Returns the resident memory of this process in bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is listed");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    #[test]
    fn pictures_that_are_freed_among_small_things_that_stay_go_back_to_the_system() {
        const MIB: usize = 1 << 20;
        give_back_freed_memory();
        let before = resident();
        let mut kept = Vec::new();
        for _ in 0..3 {
            // The small allocations lie between the large ones, where those are on a heap.
            let (large, small): (Vec<_>, Vec<_>) = (0..128).map(|n: u8| (vec![n | 1; MIB], vec![n; 1000])).unzip();
            kept.push(small);
            assert!(resident() > before + 100 * MIB);
            drop(large);
        }
        // Other tests of this process run at the same time, hence the tolerance.
        assert!(resident() < before + 80 * MIB, "{} MiB stay", (resident() - before) / MIB);
        assert_eq!(kept.len(), 3);
    }
}
