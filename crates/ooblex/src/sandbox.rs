//! Sandbox of `ooblex serve` and `ooblex worker`: limits which files they may open (Landlock) and
//! which system calls they may make (seccomp). It contains an attacker who has taken over the
//! process through a codec or a model.
//!
//! A mechanism that the kernel does not support is skipped, which is logged and reported by `ooblex
//! check`. Both mechanisms apply to the calling thread and its future threads and processes, so
//! [`enter`] must run before the first thread is started. The child processes that try custom
//! models inherit them.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    path_beneath_rules,
};
use ooblex_effects::{Device, Runtime};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use ooblex_config::{Config, SandboxChoice};

/// Paths that every process may read, to load libraries, resolve names and verify certificates.
/// Missing paths are skipped.
///
/// Where a file may be replaced by rename, its folder is listed, because a Landlock rule holds for
/// the inode and not for the name.
const SYSTEM_FILES: [&str; 18] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/var/lib/ca-certificates",
    "/etc",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/urandom",
];
/// Environment variables that replace the system's certificate authorities: a file, or
/// colon-separated folders.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Allowed address families of sockets: Unix, IPv4, IPv6, and netlink, which lists the addresses of
/// the machine.
const SOCKET_FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Types of namespaces, as flags of `clone`.
const NAME_SPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
/// Blocked system calls. Neither this program nor its libraries use them: they inspect other
/// processes, change the machine, or are frequently used to attack the kernel.
const FORBIDDEN: [libc::c_long; 49] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execveat,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Status of one of the two mechanisms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restriction {
    /// The kernel enforces it completely.
    InForce,
    /// The kernel enforces only parts of it, because it is older than 6.10.
    InPart,
    /// The configuration disables it, for the given reason.
    Off(&'static str),
    /// The kernel does not support it, or refuses it.
    Unavailable(String),
}

/// Status of both mechanisms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// File access (Landlock).
    pub files: Restriction,
    /// System calls (seccomp).
    pub calls: Restriction,
}

/// Restricts the calling thread, and all threads and processes that it starts later. `file` is the
/// configuration file, if one was given.
///
/// This function does not fail: a mechanism that is not available is reported as
/// [`Restriction::Unavailable`].
pub fn enter(config: &Config, file: Option<&Path>) -> Sandbox {
    if config.security.sandbox == SandboxChoice::Off {
        let off = Restriction::Off("security.sandbox is \"off\"");
        return Sandbox { files: off.clone(), calls: off };
    }
    let files = if config.inference.device == Device::Cpu {
        restrict_files(&readable(config, file), config.recordings.folder.as_deref())
            .unwrap_or_else(|error| Restriction::Unavailable(format!("Landlock: {error}")))
    } else {
        // Device drivers open device files and caches at unknown paths.
        Restriction::Off("inference.device is not \"cpu\", and its driver opens files of its own")
    };
    let calls = restrict_calls(config.inference.device).unwrap_or_else(|error| Restriction::Unavailable(format!("seccomp: {error}")));
    Sandbox { files, calls }
}

/// Determines what [`enter`] would achieve, on a temporary thread.
pub fn probe(config: &Config, file: Option<&Path>) -> Sandbox {
    std::thread::scope(|threads| threads.spawn(|| enter(config, file)).join()).unwrap_or_else(|_| {
        let unavailable = Restriction::Unavailable("no thread could try it".into());
        Sandbox { files: unavailable.clone(), calls: unavailable }
    })
}

impl Sandbox {
    /// Returns whether a mechanism is missing that the operator did not disable.
    pub fn is_incomplete(&self) -> bool {
        [&self.files, &self.calls].iter().any(|restriction| matches!(restriction, Restriction::Unavailable(_)))
    }
}

impl std::fmt::Display for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "files: {}; system calls: {}", self.files, self.calls)
    }
}

impl std::fmt::Display for Restriction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Restriction::InForce => f.write_str("restricted"),
            Restriction::InPart => f.write_str("restricted as far as this kernel can (6.2 also keeps files from being emptied)"),
            Restriction::Off(reason) => write!(f, "not restricted, because {reason}"),
            Restriction::Unavailable(reason) => write!(f, "not restricted, because this system cannot ({reason})"),
        }
    }
}

/// Returns files and folders that are read after the start: on SIGHUP, when the Redis connection is
/// reopened, and when a custom model is tried.
fn readable(config: &Config, file: Option<&Path>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM_FILES.iter().map(PathBuf::from).collect();
    paths.extend(with_folders(file.unwrap_or(Path::new(Config::DEFAULT_FILE))));
    paths.extend(config.files().into_iter().flat_map(|file| with_folders(&file)));
    paths.extend(config.inference.models.clone());
    let libraries = config.inference.library.clone().into_iter().chain(std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from));
    paths.extend(libraries.flat_map(|library| with_folders(&library)));
    paths.extend(Runtime::library_folders());
    paths.extend(
        CERTIFICATE_VARIABLES
            .iter()
            .filter_map(std::env::var_os)
            .flat_map(|value| std::env::split_paths(&value).flat_map(|path| with_folders(&path)).collect::<Vec<_>>()),
    );
    paths.extend(existing_or_parent(&config.own_effects.folder));
    paths
}

/// Returns the folders of a file and of its symlink target. Files are often replaced by rename or
/// are links, so a rule for the file alone would not hold.
fn with_folders(file: &Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    let folders = [Some(file), real.as_deref()].into_iter().flatten().filter_map(|file| Some(file.parent()?.to_path_buf()));
    folders.filter(|folder| !folder.as_os_str().is_empty() && folder != Path::new("/")).chain([file.to_path_buf()]).collect()
}

/// Returns the custom effects folder, or its parent if it does not exist yet, unless the parent is
/// the root.
fn existing_or_parent(folder: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(folder).ok()?;
    if absolute.exists() {
        return Some(absolute);
    }
    absolute.parent().filter(|parent| parent.exists() && *parent != Path::new("/")).map(Into::into)
}

/// Restricts the access to files. `writable`: the folder in which files may be written, which is made,
/// because a rule needs a folder that exists.
fn restrict_files(readable: &[PathBuf], writable: Option<&Path>) -> Result<Restriction, Box<dyn std::error::Error>> {
    // Access rights that the running kernel does not know are ignored.
    let rights = AccessFs::from_all(ABI::V5);
    if let Some(folder) = writable {
        // The recordings name the error, when they open the folder.
        _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    }
    let writing = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let program = std::env::current_exe()?;
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].map(PathBuf::from);
    // Only the program and the loaders are executable. A loader can still be told to run a program
    // from the readable folders.
    let executable = loaders.into_iter().chain([program]);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(rights)?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(executable, AccessFs::ReadFile | AccessFs::Execute))?
        .add_rules(path_beneath_rules(writable, writing))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Restriction::InForce,
        RulesetStatus::PartiallyEnforced => Restriction::InPart,
        RulesetStatus::NotEnforced => Restriction::Unavailable("the kernel has no Landlock; it came with Linux 5.13".into()),
    })
}

/// Returns the numbers of a system call. On x86-64 it has a second one in the x32 ABI, which some
/// kernels support.
fn also_as_x32(call: libc::c_long) -> impl Iterator<Item = i64> {
    const X32: i64 = 0x4000_0000;
    [call].into_iter().chain(cfg!(target_arch = "x86_64").then_some(call | X32))
}

/// Returns the system calls that fail with EPERM, with the arguments for which they do; without
/// rules, they always fail.
///
/// On the CPU, `memfd_create` is among them, because Landlock does not keep a process from
/// executing a file in memory. Device drivers share memory with it.
fn refused_calls(device: Device) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let is_flag_set =
        |flag: libc::c_int| SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag as u64), flag as u64);
    let name_spaces = NAME_SPACES.iter().map(|flag| SeccompRule::new(vec![is_flag_set(*flag)?]));
    let name_spaces = name_spaces.collect::<Result<Vec<_>, _>>()?;
    let is_not = |family: &libc::c_int| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *family as u64);
    let families = vec![SeccompRule::new(SOCKET_FAMILIES.iter().map(is_not).collect::<Result<_, _>>()?)?];
    let files_in_memory = (device == Device::Cpu).then_some(libc::SYS_memfd_create);
    let forbidden = FORBIDDEN.into_iter().chain(files_in_memory).map(|call| (call, Vec::new()));
    let calls = forbidden.chain([(libc::SYS_clone, name_spaces), (libc::SYS_socket, families)]);
    Ok(calls.flat_map(|(call, rules)| also_as_x32(call).map(move |call| (call, rules.clone()))).collect())
}

/// Returns the system calls that fail with ENOSYS, as on an old kernel. A filter cannot read the
/// flags of clone3, which are in memory; with ENOSYS, the C library falls back to clone.
fn absent_calls() -> BTreeMap<i64, Vec<SeccompRule>> {
    also_as_x32(libc::SYS_clone3).map(|call| (call, Vec::new())).collect()
}

fn restrict_calls(device: Device) -> Result<Restriction, Box<dyn std::error::Error>> {
    let arch = std::env::consts::ARCH.try_into()?;
    for (calls, error) in [(refused_calls(device)?, libc::EPERM), (absent_calls(), libc::ENOSYS)] {
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(error as u32), arch)?;
        seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    Ok(Restriction::InForce)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    /// Runs `look` on a thread inside the sandbox of the default configuration.
    fn inside<T: Send>(look: impl FnOnce(Sandbox) -> T + Send) -> T {
        std::thread::scope(|threads| threads.spawn(|| look(enter(&Config::default(), None))).join()).expect("the thread does not panic")
    }

    #[test]
    fn files_that_are_not_needed_cannot_be_read_and_none_can_be_written() {
        let folder = std::env::temp_dir();
        let secret = folder.join(format!("ooblex-sandbox-{}", std::process::id()));
        fs::write(&secret, "secret").expect("outside of the sandbox it can be written");
        inside(|sandbox| {
            if sandbox.files != Restriction::InForce {
                eprintln!("not tested: {sandbox}");
                return;
            }
            let kind = |outcome: std::io::Result<()>| outcome.map_err(|error| error.kind());
            assert_eq!(kind(fs::read(&secret).map(drop)), Err(ErrorKind::PermissionDenied));
            assert_eq!(kind(fs::write(&secret, "changed")), Err(ErrorKind::PermissionDenied));
            assert_eq!(kind(fs::write(folder.join("ooblex-sandbox-new"), "new")), Err(ErrorKind::PermissionDenied));
            assert_eq!(
                kind(std::process::Command::new("/bin/sh").arg("-c").arg("true").status().map(drop)),
                Err(ErrorKind::PermissionDenied)
            );
            assert_eq!(kind(fs::read("/proc/self/status").map(drop)), Ok(()));
        });
        assert_eq!(fs::read_to_string(&secret).expect("other threads are not restricted"), "secret");
        fs::remove_file(secret).expect("it was there");
    }

    #[test]
    fn a_configuration_file_that_was_replaced_can_still_be_read() {
        let folder = std::env::temp_dir().join(format!("ooblex-sandbox-config-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (file, newer) = (folder.join("ooblex.toml"), folder.join("newer.toml"));
        fs::write(&file, "old").expect("a file");
        let (entered, replaced) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                enter(&Config::default(), Some(&file));
                entered.wait();
                replaced.wait();
                fs::read_to_string(&file)
            });
            entered.wait();
            fs::write(&newer, "new").and_then(|()| fs::rename(&newer, &file)).expect("it is replaced from outside of the sandbox");
            replaced.wait();
            assert_eq!(reader.join().expect("no panic").expect("it can be read"), "new");
        });
        fs::remove_dir_all(folder).expect("it was there");
    }

    #[test]
    fn sockets_of_other_families_and_new_processes_in_name_spaces_are_refused() {
        inside(|sandbox| {
            if sandbox.calls != Restriction::InForce {
                eprintln!("not tested: {sandbox}");
                return;
            }
            let open = |family: libc::c_int| {
                socket2::Socket::new(family.into(), socket2::Type::STREAM, None).map_err(|error| error.raw_os_error())
            };
            assert_eq!(open(libc::AF_VSOCK).map(drop), Err(Some(libc::EPERM)));
            assert!(open(libc::AF_INET).is_ok());
            let status = fs::read_to_string("/proc/thread-self/status").expect("Linux has it");
            assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
        });
    }

    #[test]
    fn calls_that_reach_other_processes_or_mounts_are_refused_by_each_of_their_numbers() {
        let refused_on = |device| refused_calls(device).expect("the rules are valid");
        let (refused, absent) = (refused_on(Device::Cpu), absent_calls());
        let mounts = [libc::SYS_umount2, libc::SYS_mount_setattr, libc::SYS_fspick];
        let always = [libc::SYS_ptrace, libc::SYS_process_madvise, libc::SYS_execveat, libc::SYS_memfd_create].into_iter().chain(mounts);
        for number in always.flat_map(also_as_x32) {
            assert!(refused.get(&number).is_some_and(Vec::is_empty), "{number}");
        }
        for (call, rules) in [(libc::SYS_clone, NAME_SPACES.len()), (libc::SYS_socket, 1)] {
            assert!(also_as_x32(call).all(|number| refused.get(&number).is_some_and(|of| of.len() == rules)), "{call}");
        }
        assert!(also_as_x32(libc::SYS_clone3).all(|number| absent.contains_key(&number)));
        assert!(!refused_on("cuda".parse().expect("a device")).contains_key(&libc::SYS_memfd_create), "its driver may use it");
        if cfg!(target_arch = "x86_64") {
            assert!(refused.contains_key(&(0x4000_0000 + 41)) && absent.contains_key(&(0x4000_0000 + 435)), "socket and clone3 of x32");
        }
    }

    #[test]
    fn turned_off_it_restricts_nothing_and_says_so() {
        let mut config = Config::default();
        config.security.sandbox = SandboxChoice::Off;
        let sandbox = probe(&config, None);
        assert!(matches!(sandbox.files, Restriction::Off(_)) && matches!(sandbox.calls, Restriction::Off(_)) && !sandbox.is_incomplete());
        assert!(sandbox.to_string().contains("security.sandbox"), "{sandbox}");
    }

    #[test]
    fn a_graphics_processor_keeps_its_files() {
        let mut config = Config::default();
        config.inference.device = "cuda".parse().expect("a device");
        assert!(matches!(probe(&config, None).files, Restriction::Off(_)));
    }
}
