//! How the C library handles memory that is freed: codecs, models and pictures all have theirs from it.

/// Larger pieces come from the system and go back to it; a picture of 640×480 is a little smaller.
#[cfg(target_env = "gnu")]
const FROM_SYSTEM: libc::c_int = 512 * 1024;
/// More than this at the end of a heap goes back, too.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 1024 * 1024;

/// Has large pieces of freed memory given back to the system, from here on. To be called once, first thing in the program.
///
/// Left to itself glibc raises its limits with each large piece that is freed, and keeps what the most sessions at a time took. Other C
/// libraries are left as they are.
pub fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and changes the allocator's own settings under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_SYSTEM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives back what is free between things that stay, which [`give_back_freed_memory`] leaves. Takes some milliseconds, for which threads that
/// want memory may wait.
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

    /// Memory of this process that is in RAM, bytes.
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
            // The small ones lie between the large ones, wherever those are on a heap.
            let (large, small): (Vec<_>, Vec<_>) = (0..128).map(|n: u8| (vec![n | 1; MIB], vec![n; 1000])).unzip();
            kept.push(small);
            assert!(resident() > before + 100 * MIB);
            drop(large);
        }
        // Other tests run beside this one.
        assert!(resident() < before + 80 * MIB, "{} MiB stay", (resident() - before) / MIB);
        assert_eq!(kept.len(), 3);
    }
}
