//! Decoder threads, which decode the pictures from the gateway, read their numbers, and judge them.
//! Decoding runs outside the sessions' runtime, so that a slow picture does not distort arrival
//! times.
//!
//! The threads own the decoders, one for each decoded session. Sessions submit frames without
//! waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ooblex_codec::{Decoder, Limits};
use ooblex_pipeline::EncodedFrame;

use super::clip::Clip;
use super::effect_check::Look;
use super::frame_number;
use super::session_stats::Reading;
use super::viewer::Viewer;

/// Maximum number of frames queued for a thread: a few seconds of one session. Frames beyond it are
/// dropped.
const WAITING: usize = 128;

/// A frame to decode.
pub(super) struct Work {
    /// Session that received the frame.
    pub(super) viewer: Arc<Viewer>,
    /// The encoded frame.
    pub(super) frame: EncodedFrame,
    /// True if frames before this one are missing.
    pub(super) gap: bool,
    /// Time at which the frame was complete.
    pub(super) arrived: Instant,
    /// Frame of the clip that the RTP timestamp identifies as the source.
    pub(super) source: Option<u16>,
}

enum Task {
    Decode(Box<Work>),
    /// Releases the decoder of a session that has ended.
    Forget(usize),
}

/// The pool of decoder threads.
pub(super) struct Decoders {
    threads: Vec<(Sender<Task>, JoinHandle<()>)>,
}

impl Decoders {
    /// Starts `count` threads, which compare pictures with this clip.
    ///
    /// # Errors
    /// Returns an error if the system provides no thread.
    pub(super) fn start(count: usize, clip: &Arc<Clip>) -> std::io::Result<Self> {
        let start = |index: usize| {
            let (sender, receiver) = bounded(WAITING);
            let clip = clip.clone();
            let thread = std::thread::Builder::new().name(format!("decode-{index}")).spawn(move || run(&clip, &receiver))?;
            Ok((sender, thread))
        };
        Ok(Self { threads: (0..count.max(1)).map(start).collect::<std::io::Result<_>>()? })
    }

    /// Submits a frame. Returns `false` if the queue is full and the frame is dropped; the
    /// session's next frame then has `gap` set.
    pub(super) fn decode(&self, work: Work) -> bool {
        self.thread_of(work.viewer.index).try_send(Task::Decode(Box::new(work))).is_ok()
    }

    /// Releases the decoder of a session that has ended.
    pub(super) fn forget(&self, session: usize) {
        // If the queue is full, the decoder stays allocated until the end of the run.
        _ = self.thread_of(session).try_send(Task::Forget(session));
    }

    fn thread_of(&self, session: usize) -> &Sender<Task> {
        &self.threads[session % self.threads.len()].0
    }
}

impl Drop for Decoders {
    fn drop(&mut self) {
        for (sender, thread) in self.threads.drain(..) {
            drop(sender);
            _ = thread.join();
        }
    }
}

fn run(clip: &Clip, tasks: &Receiver<Task>) {
    let mut decoders: HashMap<usize, Decoder> = HashMap::new();
    for task in tasks {
        match task {
            Task::Decode(work) => decode(clip, &mut decoders, &work),
            Task::Forget(session) => _ = decoders.remove(&session),
        }
    }
}

fn decode(clip: &Clip, decoders: &mut HashMap<usize, Decoder>, work: &Work) {
    let session = work.viewer.index;
    if decoders.get(&session).is_none_or(|decoder| decoder.codec() != work.frame.codec) {
        let Ok(decoder) = Decoder::new(work.frame.codec, Limits::default()) else { return };
        decoders.insert(session, decoder);
    }
    let Some(decoder) = decoders.get_mut(&session) else { return };
    if work.gap {
        decoder.frames_lost();
    }
    let picture = match decoder.decode(&work.frame.data) {
        Ok(Some(picture)) => picture,
        Ok(None) => return,
        Err(_) => return work.viewer.want_keyframe(),
    };
    let number = frame_number::read(&picture);
    // The number on the picture comes before the RTP timestamp: an unprocessed picture shows its
    // own number under any timestamp.
    let source = number.or(work.source).and_then(|index| clip.frames.get(usize::from(index)));
    let raw = work.viewer.judge.zip(source).and_then(|(judge, source)| {
        let look = Look::of(&picture, clip.background);
        judge.is_raw(&look, &source.look)
    });
    work.viewer.tally().on_reading(&Reading { arrived: work.arrived, number, source: work.source, raw });
}
