//! The folder of recordings: `ROOM/TIME.webm` or `.mkv`, where TIME is the beginning in UTC. It makes
//! files that only the user of the program may read, lists them, and removes old ones. Files that are
//! being written stay.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ooblex_codec::container::matroska::extension;
use ooblex_pipeline::VideoCodec;
use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tracing::{info, warn};

/// The number of files of a room that can begin within one second.
const MAX_OF_A_SECOND: u32 = 99;
/// The names of files end with one of these.
const CODECS: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];

/// A folder of recordings.
pub(crate) struct Folder {
    root: PathBuf,
    retention: Retention,
    /// The files that are being written.
    open: Mutex<HashSet<PathBuf>>,
}

/// What is kept of the recordings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Retention {
    /// The time for which complete files are kept. `None`: for ever.
    pub(crate) max_age: Option<Duration>,
    /// The size of all files above which the oldest are removed. `None`: no limit.
    pub(crate) max_bytes: Option<u64>,
}

/// A file of a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RecordedFile {
    /// Its name, which begins with its time in UTC.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// It is not being written any more.
    pub is_complete: bool,
}

/// A file that is being written.
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    folder: Arc<Folder>,
}

/// A file that can be removed.
struct Old {
    modified: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be made, or no file can be made in it.
    pub(crate) fn open(root: &Path, retention: Retention) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        private_folder(&root)?;
        let probe = root.join(".ooblex");
        private_file(OpenOptions::new().create(true).truncate(true), &probe)?;
        fs::remove_file(probe)?;
        Ok(Self { root, retention, open: Mutex::default() })
    }

    /// Begins a file of a room.
    ///
    /// # Errors
    /// When there can be none, or the name of the room is no name of a folder.
    pub(crate) fn create(self: &Arc<Self>, room: &str, codec: VideoCodec, now: SystemTime) -> io::Result<OpenFile> {
        let folder = self.room(room).ok_or(io::ErrorKind::InvalidFilename)?;
        let (time, extension) = (utc(now), extension(codec));
        // Nothing is removed meanwhile.
        let mut open = self.open.lock();
        private_folder(&folder)?;
        for number in 1..=MAX_OF_A_SECOND {
            let name = if number == 1 { format!("{time}.{extension}") } else { format!("{time}-{number}.{extension}") };
            let path = folder.join(name);
            match private_file(OpenOptions::new().create_new(true), &path) {
                Ok(file) => {
                    open.insert(path.clone());
                    return Ok(OpenFile { file, path, folder: self.clone() });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Returns the files of a room in the order of their times.
    pub(crate) fn list(&self, room: &str) -> Vec<RecordedFile> {
        let open = self.open.lock();
        let files = self.room(room).map(|folder| files(&folder)).unwrap_or_default();
        let listed = files.into_iter().filter_map(|Old { path, bytes, .. }| {
            let file = path.file_name()?.to_str()?.to_string();
            Some(RecordedFile { file, bytes, is_complete: !open.contains(&path) })
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort();
        listed
    }

    /// Returns the path of a file of a room. `None` if it cannot be one.
    pub(crate) fn path(&self, room: &str, file: &str) -> Option<PathBuf> {
        self.room(room).map(|folder| folder.join(file)).filter(|_| is_file_name(file))
    }

    /// Removes the files that are too old, and then the oldest until the rest is not too large.
    /// Returns how many.
    pub(crate) fn tidy(&self, now: SystemTime) -> usize {
        let open = self.open.lock();
        let Retention { max_age, max_bytes } = self.retention;
        if max_age.is_none() && max_bytes.is_none() {
            return 0;
        }
        let rooms: Vec<PathBuf> = entries(&self.root).map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        let mut all: Vec<Old> = rooms.iter().flat_map(|room| files(room)).collect();
        all.sort_by_key(|old| old.modified);
        let mut bytes: u64 = all.iter().map(|old| old.bytes).sum();
        let mut removed = 0;
        for old in all.into_iter().filter(|old| !open.contains(&old.path)) {
            let is_expired = max_age.is_some_and(|max| now.duration_since(old.modified).is_ok_and(|age| age > max));
            if !is_expired && max_bytes.is_none_or(|max| bytes <= max) {
                continue;
            }
            match fs::remove_file(&old.path) {
                Ok(()) => {
                    info!(file = %old.path.display(), "a recording was removed, because it is {}", if is_expired { "too old" } else { "the oldest of too many" });
                    bytes -= old.bytes;
                    removed += 1;
                }
                Err(error) => warn!(file = %old.path.display(), %error, "a recording cannot be removed"),
            }
        }
        if removed > 0 {
            // Folders that are not empty stay.
            rooms.iter().for_each(|room| _ = fs::remove_dir(room));
        }
        removed
    }

    /// Returns the folder of a room. `None` if its name could lead elsewhere.
    fn room(&self, room: &str) -> Option<PathBuf> {
        let mut parts = Path::new(room).components();
        let is_single = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == room);
        is_single.then(|| self.root.join(room))
    }
}

impl OpenFile {
    /// Waits until the file is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for OpenFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.folder.open.lock().remove(&self.path);
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.write(true).mode(0o600).open(path)
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// Returns the recordings in the folder of a room, and no other files.
fn files(folder: &Path) -> Vec<Old> {
    let old = |entry: fs::DirEntry| {
        let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        is_file_name(entry.file_name().to_str()?).then_some(())?;
        Some(Old { modified: about.modified().ok()?, bytes: about.len(), path: entry.path() })
    };
    entries(folder).filter_map(old).collect()
}

/// Tells whether a file has the name of a recording: `20261130T211058Z.webm`, or with a number:
/// `20261130T211058Z-2.webm`.
fn is_file_name(name: &str) -> bool {
    let Some((stem, end)) = name.split_once('.') else { return false };
    let (time, number) = stem.split_once('-').unwrap_or((stem, "2"));
    let is_time = time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_time && is_number && CODECS.into_iter().any(|codec| extension(codec) == end)
}

/// Returns a time in UTC as in `20261130T211058Z`.
fn utc(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let ((year, month, day), (hour, minute, second)) = (time.to_calendar_date(), time.to_hms());
    format!("{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ooblex-recordings-{}-{name}", std::process::id()));
            _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn folder(&self, retention: Retention) -> Arc<Folder> {
            Arc::new(Folder::open(&self.0, retention).unwrap())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Makes a file of this size, modified at this time.
    fn file(folder: &Arc<Folder>, room: &str, seconds: u64, bytes: usize) -> OpenFile {
        let mut file = folder.create(room, VideoCodec::Vp8, at(seconds)).unwrap();
        file.write_all(&vec![0; bytes]).unwrap();
        file.file.set_modified(at(seconds)).unwrap();
        file
    }

    fn names(folder: &Folder, room: &str) -> Vec<String> {
        folder.list(room).into_iter().map(|file| file.file).collect()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_798_761_599, "20261231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(utc(at(seconds)), expected);
        }
    }

    #[test]
    fn only_recordings_have_names_and_none_leads_elsewhere() {
        for name in ["20261130T211058Z.webm", "20261130T211058Z-2.mkv", "20261130T211058Z-99.webm"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in
            ["", ".", "..", "20261130T211058Z", "20261130T211058Z.mp4", "20261130T211058Z-.webm", "20261130T211058Z.webm/..", "../a.webm"]
        {
            assert!(!is_file_name(name), "{name}");
        }
        let scratch = Scratch::new("names");
        let folder = scratch.folder(Retention::default());
        for room in ["", ".", "..", "a/b", "/", "/etc", "a/", "./a"] {
            assert_eq!(folder.path(room, "20261130T211058Z.webm"), None, "{room}");
            assert!(folder.create(room, VideoCodec::Vp8, at(0)).is_err(), "{room}");
        }
        assert!(folder.path("room", "../20261130T211058Z.webm").is_none());
        assert_eq!(folder.path("..a", "20261130T211058Z.webm"), Some(scratch.0.join("..a/20261130T211058Z.webm")));
    }

    #[test]
    fn files_are_private_and_those_of_one_second_have_numbers() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new("private");
        let folder = scratch.folder(Retention::default());
        let open = [VideoCodec::Vp8, VideoCodec::Vp8, VideoCodec::H264].map(|codec| folder.create("a", codec, at(0)).unwrap());
        assert_eq!(names(&folder, "a"), ["19700101T000000Z-2.webm", "19700101T000000Z.mkv", "19700101T000000Z.webm"]);
        assert!(folder.list("a").iter().all(|file| !file.is_complete));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(open[0].path()), mode(&scratch.0.join("a")), mode(&scratch.0)), (0o600, 0o700, 0o700));
        drop(open);
        assert!(folder.list("a").iter().all(|file| file.is_complete));
        assert!(folder.list("b").is_empty());
    }

    #[test]
    fn old_files_are_removed_and_what_is_being_written_is_not() {
        let scratch = Scratch::new("age");
        let folder = scratch.folder(Retention { max_age: Some(Duration::from_secs(100)), max_bytes: None });
        for seconds in [0, 50] {
            drop(file(&folder, "a", seconds, 1));
        }
        drop(file(&folder, "b", 1, 1));
        let open = file(&folder, "c", 2, 1);
        fs::write(scratch.0.join("a/notes"), "").unwrap();
        assert_eq!(folder.tidy(at(100)), 0);
        assert_eq!(folder.tidy(at(120)), 2);
        assert_eq!((names(&folder, "a"), names(&folder, "c").len()), (vec!["19700101T000050Z.webm".to_string()], 1));
        assert!(!scratch.0.join("b").exists() && scratch.0.join("a/notes").exists());
        drop(open);
        assert_eq!(folder.tidy(at(1000)), 2);
    }

    #[test]
    fn oldest_files_are_removed_until_the_rest_is_small_enough() {
        let scratch = Scratch::new("size");
        let folder = scratch.folder(Retention { max_age: None, max_bytes: Some(250) });
        let open = file(&folder, "a", 0, 100);
        for (room, seconds) in [("a", 1), ("b", 2), ("a", 3)] {
            drop(file(&folder, room, seconds, 100));
        }
        assert_eq!(folder.tidy(at(10)), 2);
        assert_eq!(
            (names(&folder, "a"), names(&folder, "b").len()),
            (vec!["19700101T000000Z.webm".into(), "19700101T000003Z.webm".into()], 0)
        );
        drop(open);
        assert_eq!(folder.tidy(at(10)), 0);
    }

    #[test]
    fn folder_in_which_no_file_can_be_made_is_refused() {
        assert!(Folder::open(Path::new("/proc/ooblex"), Retention::default()).is_err());
    }
}
