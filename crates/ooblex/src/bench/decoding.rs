//! The threads that decode what comes back, read the number on it, and judge it. Codecs stay off the sessions' runtime, so that a
//! slow picture does not falsify the times of arrival.
//!
//! They own the decoders, one for each session whose pictures are looked at. Sessions hand frames in and do not wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ooblex_codec::{Decoder, Limits};
use ooblex_pipeline::EncodedFrame;

use super::clip::Clip;
use super::judge::Look;
use super::number;
use super::tally::Reading;
use super::viewer::Viewer;

/// Frames that wait for a decoder: some seconds of a session. What comes when there are more is left out.
const WAITING: usize = 128;

/// A frame to decode.
pub(super) struct Work {
    /// The session that it came to.
    pub(super) viewer: Arc<Viewer>,
    /// The frame.
    pub(super) frame: EncodedFrame,
    /// Frames before it are missing.
    pub(super) gap: bool,
    /// When it was whole.
    pub(super) arrived: Instant,
    /// The frame of the clip that its timestamp says it was made of.
    pub(super) source: Option<u16>,
}

enum Task {
    Decode(Box<Work>),
    /// A session is over.
    Forget(usize),
}

/// The threads.
pub(super) struct Decoders {
    threads: Vec<(Sender<Task>, JoinHandle<()>)>,
}

impl Decoders {
    /// Starts threads that compare with this clip.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(count: usize, clip: &Arc<Clip>) -> std::io::Result<Self> {
        let start = |index: usize| {
            let (sender, receiver) = bounded(WAITING);
            let clip = clip.clone();
            let thread = std::thread::Builder::new().name(format!("decode-{index}")).spawn(move || run(&clip, &receiver))?;
            Ok((sender, thread))
        };
        Ok(Self { threads: (0..count.max(1)).map(start).collect::<std::io::Result<_>>()? })
    }

    /// Hands a frame in. `false`: too many wait, and it is left out; the next one of the session has a gap before it.
    pub(super) fn decode(&self, work: Work) -> bool {
        self.thread_of(work.viewer.index).try_send(Task::Decode(Box::new(work))).is_ok()
    }

    /// A session is over.
    pub(super) fn forget(&self, session: usize) {
        // Where it does not fit, a decoder is kept for nothing.
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
    let number = number::read(&picture);
    // An unprocessed picture shows its number, whatever its timestamp says.
    let source = number.or(work.source).and_then(|index| clip.frames.get(usize::from(index)));
    let raw = work.viewer.judge.zip(source).and_then(|(judge, source)| {
        let look = Look::of(&picture, clip.background);
        judge.is_raw(&look, &source.look)
    });
    work.viewer.tally().on_reading(&Reading { arrived: work.arrived, number, source: work.source, raw });
}
