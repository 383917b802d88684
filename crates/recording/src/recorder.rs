//! The recorder: forms files of pictures and sound. Time is an argument; a [`Store`] makes the files.
//!
//! A file begins with a keyframe. A change of size or codec, the first sound, and the longest duration
//! of a file begin another one, at the next keyframe. Pictures and sound are written together and in
//! the order of their times, in clusters of half a second: sound comes at once, and pictures as late
//! as their effect. Nothing waits for more than a second, so the pictures of an effect that takes more
//! than half a second are written after the sound of their time.

use std::io::{self, Seek, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_codec::container::matroska::{Block, Track, Writer};
use ooblex_codec::keyframe_size;
use ooblex_pipeline::{EncodedFrame, Size, VideoCodec};

use crate::clock::StreamClock;

/// The duration of a cluster, which is written at once.
const CLUSTER: Duration = Duration::from_millis(500);
/// The longest time for which anything waits to be written while no pictures come.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The longest time for which sound is kept before the first picture.
const MAX_LEAD: Duration = Duration::from_secs(2);
/// The duration of the last picture or packet of a file, at most.
const MAX_LAST: Duration = Duration::from_millis(100);
/// The shortest distance of two pictures or packets, since a file counts milliseconds.
const MIN_DISTANCE: Duration = Duration::from_millis(1);

/// Makes the files of a recording.
pub(crate) trait Store {
    type File: Write + Seek;

    /// Begins a file.
    ///
    /// # Errors
    /// When there can be none.
    fn create(&mut self, codec: VideoCodec) -> io::Result<Self::File>;

    /// Takes a file that is complete.
    ///
    /// # Errors
    /// When it is not certain that it is stored.
    fn complete(&mut self, file: Self::File) -> io::Result<()>;
}

/// A packet of sound.
#[derive(Debug)]
pub(crate) struct Sound {
    /// RTP timestamp, at 48 kHz.
    pub(crate) timestamp: u64,
    pub(crate) arrived: Instant,
    /// An Opus packet.
    pub(crate) data: Arc<[u8]>,
}

/// Records one room.
pub(crate) struct Recorder<S: Store> {
    store: S,
    max_duration: Duration,
    video: Stream,
    audio: Stream,
    pending: Vec<Pending>,
    section: Option<Section<S::File>>,
    written_bytes: u64,
}

struct Stream {
    clock: StreamClock,
    last: Option<Instant>,
}

/// The time of a picture or packet.
struct Time {
    at: Instant,
    end: Instant,
}

/// A picture or packet that is not written yet.
struct Pending {
    track: Track,
    at: Instant,
    /// The end of its time.
    end: Instant,
    keyframe: bool,
    data: Arc<[u8]>,
}

/// The part of a recording that is one file.
struct Section<F> {
    first: EncodedFrame,
    size: Option<Size>,
    begin: Instant,
    cluster: Instant,
    /// The end of what was written.
    end: Instant,
    /// The file, which begins with the end of the first cluster: then it is known whether there is
    /// sound.
    file: Option<OpenFile<F>>,
}

struct OpenFile<F> {
    writer: Writer<F>,
    has_audio: bool,
}

impl<S: Store> Recorder<S> {
    pub(crate) fn new(store: S, max_duration: Duration) -> Self {
        let stream = |rate_hz| Stream { clock: StreamClock::new(rate_hz), last: None };
        let (video, audio) = (stream(90_000), stream(48_000));
        Self { store, max_duration, video, audio, pending: Vec::new(), section: None, written_bytes: 0 }
    }

    /// Returns the number of bytes written since the last call.
    pub(crate) fn take_written_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.written_bytes)
    }

    /// Takes a processed picture, whose source arrived at this time.
    ///
    /// # Errors
    /// When a file cannot be written. Nothing more can be recorded then.
    pub(crate) fn on_frame(&mut self, frame: EncodedFrame, arrived: Instant) -> io::Result<()> {
        let Time { at, end } = self.video.place(frame.capture.0, arrived);
        let (keyframe, data) = (frame.keyframe, frame.data.clone());
        if keyframe && self.section.as_ref().is_none_or(|section| self.is_over(section, &frame, at)) {
            self.finish(at)?;
            self.pending.retain(|pending| pending.at >= at);
            let size = keyframe_size(frame.codec, &frame.data);
            self.section = Some(Section { first: frame, size, begin: at, cluster: at, end: at, file: None });
        }
        let Some(section) = &mut self.section else { return Ok(()) };
        if keyframe || at - section.cluster >= CLUSTER {
            section.cluster = at;
            self.flush(at)?;
        }
        self.pending.push(Pending { track: Track::Video, at, end, keyframe, data });
        Ok(())
    }

    /// Takes a packet of sound.
    ///
    /// # Errors
    /// As [`Recorder::on_frame`].
    pub(crate) fn on_sound(&mut self, Sound { timestamp, arrived, data }: Sound) -> io::Result<()> {
        let Time { at, end } = self.audio.place(timestamp, arrived);
        match &self.section {
            Some(section) if at < section.begin => return Ok(()),
            Some(_) => {}
            None => self.pending.retain(|pending| at.saturating_duration_since(pending.at) < MAX_LEAD),
        }
        self.pending.push(Pending { track: Track::Audio, at, end, keyframe: true, data });
        Ok(())
    }

    /// Writes what has waited for long, since no pictures come.
    ///
    /// # Errors
    /// As [`Recorder::on_frame`].
    pub(crate) fn poll(&mut self, now: Instant) -> io::Result<()> {
        match self.pending.iter().map(|pending| pending.at).min() {
            Some(oldest) if now.saturating_duration_since(oldest) >= MAX_WAIT => self.flush(oldest + CLUSTER),
            _ => Ok(()),
        }
    }

    /// Completes the last file.
    ///
    /// # Errors
    /// As [`Recorder::on_frame`].
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let last = self.pending.iter().map(|pending| pending.end).max();
        last.map_or(Ok(()), |last| self.flush(last + MIN_DISTANCE))?;
        self.section.as_ref().map(|section| section.end).map_or(Ok(()), |end| self.finish(end))
    }

    /// Tells whether a keyframe begins another file than that of `section`.
    fn is_over(&self, section: &Section<S::File>, frame: &EncodedFrame, at: Instant) -> bool {
        let lacks_audio = section.file.as_ref().is_some_and(|file| !file.has_audio);
        frame.codec != section.first.codec
            || keyframe_size(frame.codec, &frame.data) != section.size
            || lacks_audio && self.pending.iter().any(|pending| pending.track == Track::Audio)
            || at - section.begin >= self.max_duration
    }

    /// Writes everything before a time.
    fn flush(&mut self, until: Instant) -> io::Result<()> {
        let Some(section) = &mut self.section else { return Ok(()) };
        let (mut due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.at < until);
        self.pending = rest;
        due.sort_by_key(|pending| pending.at);
        if due.is_empty() {
            return Ok(());
        }
        let file = match &mut section.file {
            Some(file) => file,
            None => {
                let has_audio = due.iter().any(|pending| pending.track == Track::Audio);
                let writer = Writer::begin(self.store.create(section.first.codec)?, &section.first, has_audio)?;
                self.written_bytes += writer.length();
                section.file.insert(OpenFile { writer, has_audio })
            }
        };
        due.retain(|pending| file.has_audio || pending.track == Track::Video);
        section.end = due.iter().map(|pending| pending.end).fold(section.end, Instant::max);
        let begin = section.begin;
        let block = |Pending { track, at, keyframe, data, .. }| Block { track, at: at - begin, keyframe, data };
        let before = file.writer.length();
        file.writer.cluster(&due.into_iter().map(block).collect::<Vec<_>>())?;
        self.written_bytes += file.writer.length() - before;
        Ok(())
    }

    /// Completes the file, which ends at `end`, after everything before that is written.
    fn finish(&mut self, end: Instant) -> io::Result<()> {
        self.flush(end)?;
        let Some(Section { begin, file: Some(file), .. }) = self.section.take() else { return Ok(()) };
        self.store.complete(file.writer.finish(end - begin)?)
    }
}

impl Stream {
    /// Returns the time of a picture or packet. Times only increase.
    fn place(&mut self, timestamp: u64, arrived: Instant) -> Time {
        let at = self.clock.place(timestamp, arrived);
        let at = self.last.map_or(at, |last| at.max(last + MIN_DISTANCE));
        // The next one will come about as long after this one as this one after the last.
        let lasts = self.last.replace(at).map_or(MAX_LAST, |last| at - last);
        Time { at, end: at + lasts.min(MAX_LAST) }
    }
}

#[cfg(test)]
mod tests;
