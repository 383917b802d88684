//! Recordings of rooms: the processed pictures that viewers get, and the sound, in files. Nothing is
//! encoded again.
//!
//! A recording is one more receiver of the track of a publisher. It has a thread of its own with a
//! bounded queue, so that a slow disk holds up nobody. [`Recordings`] begins and ends recordings and
//! knows their files; `recorder` forms the files, `clock` places pictures and sound in time, and
//! `folder` has names and retention. This crate knows nothing of HTTP, WebRTC and permissions.
#![warn(missing_docs)]

mod clock;
mod folder;
mod recorder;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::metrics::Metrics;
use ooblex_gateway::track::{Backlog, OutputInput, TrackHandle, TrackInput, TrackOutput};
use ooblex_pipeline::{EncodedFrame, VideoCodec};
use parking_lot::RwLock;
use tracing::{error, info};

pub use folder::RecordedFile;
use folder::{Folder, OpenFile, Retention};
use recorder::{Recorder, Sound, Store};

/// Pictures and packets of sound that wait for the disk, at most: those of some seconds.
const QUEUE: usize = 256;
/// The longest time until a recording sees that it has ended.
const LOOK: Duration = Duration::from_millis(100);
/// The time between two keyframes, at which a player can begin.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(10);

/// The recordings of a gateway. Clones lead to the same ones.
#[derive(Clone)]
pub struct Recordings(Arc<Shared>);

struct Shared {
    /// `None`: nothing can be recorded.
    folder: Option<Arc<Folder>>,
    max_duration: Duration,
    metrics: Arc<Metrics>,
    running: RwLock<HashMap<SessionId, Running>>,
}

/// A recording that runs.
struct Running {
    room: String,
    track: TrackHandle,
    inbox: Inbox,
    thread: JoinHandle<()>,
}

/// The inbox of a recording.
#[derive(Clone)]
struct Inbox {
    queue: Sender<Input>,
    ended: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

enum Input {
    Frame { frame: EncodedFrame, arrived: Instant },
    Sound(Sound),
}

/// The way of a publisher's sound into its recording.
pub struct SoundInbox(Inbox);

/// The reason why a recording does not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is no folder for recordings.
    #[error("this gateway does not record: set recordings.folder")]
    Off,
    /// The room is being recorded.
    #[error("the room '{0}' is being recorded already")]
    Running(String),
    /// The track cannot take another receiver now.
    #[error("the room '{0}' is too busy now: try again in a moment")]
    Busy(String),
    /// The system gives no thread.
    #[error("there is no thread for a recording: {0}")]
    Thread(#[from] io::Error),
}

/// The folder of recordings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("recordings.folder: no file can be written in {} ({source}): make the folder, and let this user write in it", folder.display())]
pub struct FolderError {
    folder: PathBuf,
    source: io::Error,
}

impl Recordings {
    /// Opens the folder of recordings, if one is configured.
    ///
    /// # Errors
    /// When no file can be written in it.
    pub fn new(config: &ooblex_config::Recordings, metrics: Arc<Metrics>) -> Result<Self, FolderError> {
        let retention = Retention {
            max_age: (config.max_age_h > 0).then(|| Duration::from_secs(config.max_age_h * 3600)),
            max_bytes: (config.max_mib > 0).then_some(config.max_mib << 20),
        };
        let open = |folder: &PathBuf| {
            let opened = Folder::open(folder, retention);
            opened.map(Arc::new).map_err(|source| FolderError { folder: folder.clone(), source })
        };
        let folder = config.folder.as_ref().map(open).transpose()?;
        let max_duration = Duration::from_secs(config.file_minutes * 60);
        Ok(Self(Arc::new(Shared { folder, max_duration, metrics, running: RwLock::default() })))
    }

    /// Begins to record the track of a room. The recording ends with the track. Returns the inbox for
    /// the sound of the publisher.
    ///
    /// # Errors
    /// When nothing can be recorded, or the room is being recorded already.
    pub fn begin(&self, room: &str, track: &TrackHandle) -> Result<SoundInbox, BeginError> {
        let Shared { folder, max_duration, metrics, running } = self.0.as_ref();
        let folder = folder.clone().ok_or(BeginError::Off)?;
        let (id, room, backlog) = (SessionId::random(), room.to_string(), Arc::<Backlog>::default());
        let mut running = running.write();
        if running.values().any(|recording| recording.records(&room)) {
            return Err(BeginError::Running(room));
        }
        let (queue, receiver) = bounded(QUEUE);
        let inbox = Inbox { queue, ended: Arc::default(), metrics: metrics.clone() };
        let begin = OutputInput::Record { backlog: backlog.clone() };
        if !track.send(TrackInput::Output { receiver: id, input: begin }) {
            return Err(BeginError::Busy(room));
        }
        let store = RoomStore { folder, room: room.clone(), metrics: metrics.clone() };
        let recording = Recording {
            id,
            recorder: Recorder::new(store, *max_duration),
            inbox: receiver,
            ended: inbox.ended.clone(),
            track: track.clone(),
            _backlog: backlog,
        };
        let (all, name) = (self.clone(), room.clone());
        let thread = std::thread::Builder::new().name(format!("rec-{:04x}", id.0 & 0xffff)).spawn(move || {
            let _listed = Listed { id, all: all.clone() };
            recording.run(&name, &all.0.metrics);
        })?;
        running.insert(id, Running { room, track: track.clone(), inbox: inbox.clone(), thread });
        Ok(SoundInbox(inbox))
    }

    /// Ends the recording of a room; its last file is complete soon after. Returns false if there is
    /// none.
    pub fn end(&self, room: &str) -> bool {
        let running = self.0.running.read();
        let recording = running.values().find(|recording| recording.records(room));
        recording.inspect(|recording| recording.inbox.end()).is_some()
    }

    /// Ends all recordings. Returns their threads, which complete the files.
    pub fn stop(&self) -> Vec<JoinHandle<()>> {
        let running = std::mem::take(&mut *self.0.running.write());
        running.into_values().map(|recording| (recording.inbox.end(), recording.thread).1).collect()
    }

    /// Takes an output of a track for a recording. Returns false if it is lost, and the output if
    /// its receiver is no recording.
    ///
    /// # Errors
    /// When the receiver is none.
    pub fn take(&self, receiver: SessionId, output: TrackOutput) -> Result<bool, TrackOutput> {
        let running = self.0.running.read();
        let Some(Running { inbox, .. }) = running.get(&receiver) else { return Err(output) };
        Ok(match output {
            TrackOutput::Frame { frame, arrived } => inbox.send(Input::Frame { frame, arrived }),
            _ => true,
        })
    }

    /// Returns whether a room is being recorded.
    pub fn is_recorded(&self, room: &str) -> bool {
        self.0.running.read().values().any(|recording| recording.records(room))
    }

    /// Returns the files of a room in the order of their names.
    pub fn list(&self, room: &str) -> Vec<RecordedFile> {
        self.0.folder.as_ref().map(|folder| folder.list(room)).unwrap_or_default()
    }

    /// Returns the path of a file of a room, which may not exist. `None` if it is no name of a
    /// recording.
    pub fn path(&self, room: &str, file: &str) -> Option<PathBuf> {
        self.0.folder.as_ref()?.path(room, file)
    }

    /// Removes files that are too old or too many. It is to be called every minute or so.
    pub fn tidy(&self) {
        if let Some(folder) = &self.0.folder {
            self.0.metrics.feeds.recordings.removed.inc_by(folder.tidy(SystemTime::now()) as u64);
        }
    }
}

impl Running {
    /// Returns whether it still records a room. One whose track has ended completes its file, while
    /// that of the next publisher may begin.
    fn records(&self, room: &str) -> bool {
        self.room == room && !self.inbox.has_ended() && !self.track.has_ended()
    }
}

impl SoundInbox {
    /// Takes an Opus packet with its RTP timestamp at 48 kHz. Returns false if the recording has
    /// ended.
    pub fn take(&self, timestamp: u64, arrived: Instant, data: Arc<[u8]>) -> bool {
        self.0.send(Input::Sound(Sound { timestamp, arrived, data }));
        !self.0.has_ended()
    }
}

impl Inbox {
    /// Returns false if the input is lost.
    fn send(&self, input: Input) -> bool {
        if self.has_ended() {
            return false;
        }
        let is_taken = self.queue.try_send(input).is_ok();
        if !is_taken {
            self.metrics.feeds.recordings.dropped.inc();
        }
        is_taken
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// The place of a recording in the list, which it leaves with the end of its thread.
struct Listed {
    id: SessionId,
    all: Recordings,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.0.running.write().remove(&self.id);
    }
}

/// A recording, on its thread.
struct Recording {
    id: SessionId,
    recorder: Recorder<RoomStore>,
    inbox: Receiver<Input>,
    ended: Arc<AtomicBool>,
    track: TrackHandle,
    /// The track sends as long as it lives.
    _backlog: Arc<Backlog>,
}

impl Recording {
    fn run(mut self, room: &str, metrics: &Metrics) {
        info!(room, "a recording begins");
        metrics.feeds.recordings.running.inc();
        let recorded = self.record(metrics);
        self.ended.store(true, Ordering::Relaxed);
        metrics.feeds.recordings.bytes.inc_by(self.recorder.take_written_bytes());
        match recorded {
            Ok(()) => info!(room, "a recording has ended"),
            Err(error) => {
                metrics.feeds.recordings.failed.inc();
                error!(room, %error, "a recording has ended, since its file cannot be written: everything before can be played; look at the disk, then begin another one");
            }
        }
        metrics.feeds.recordings.running.dec();
    }

    /// Records until the recording or its track has ended.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn record(&mut self, metrics: &Metrics) -> io::Result<()> {
        let mut keyframe_due = Instant::now() + KEYFRAME_INTERVAL;
        while !self.ended.load(Ordering::Relaxed) && !self.track.has_ended() {
            if let Ok(input) = self.inbox.recv_timeout(LOOK) {
                self.on_input(input)?;
            }
            let now = Instant::now();
            self.recorder.poll(now)?;
            if now >= keyframe_due {
                self.track.send(TrackInput::Output { receiver: self.id, input: OutputInput::KeyframeWanted });
                keyframe_due = now + KEYFRAME_INTERVAL;
            }
            metrics.feeds.recordings.bytes.inc_by(self.recorder.take_written_bytes());
        }
        // Nothing more comes from now on.
        self.ended.store(true, Ordering::Relaxed);
        while let Ok(input) = self.inbox.try_recv() {
            self.on_input(input)?;
        }
        self.recorder.end()
    }

    fn on_input(&mut self, input: Input) -> io::Result<()> {
        match input {
            Input::Frame { frame, arrived } => self.recorder.on_frame(frame, arrived),
            Input::Sound(sound) => self.recorder.on_sound(sound),
        }
    }
}

/// The files of one room.
struct RoomStore {
    folder: Arc<Folder>,
    room: String,
    metrics: Arc<Metrics>,
}

impl Store for RoomStore {
    type File = OpenFile;

    fn create(&mut self, codec: VideoCodec) -> io::Result<OpenFile> {
        let file = self.folder.create(&self.room, codec, SystemTime::now())?;
        info!(room = self.room, file = %file.path().display(), "a file of a recording begins");
        Ok(file)
    }

    fn complete(&mut self, file: OpenFile) -> io::Result<()> {
        file.sync()?;
        self.metrics.feeds.recordings.files.inc();
        info!(room = self.room, file = %file.path().display(), "a file of a recording is complete");
        Ok(())
    }
}
