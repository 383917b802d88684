//! Tests of the recorder with files in memory, which are read back.

use std::cell::RefCell;
use std::io::{Cursor, SeekFrom};
use std::rc::Rc;

use ooblex_codec::{Encoder, EncoderConfig, Speed};
use ooblex_pipeline::{I420, MediaTime};

use super::*;

/// The time between two pictures.
const FRAME_MS: u64 = 33;
/// An Opus packet of 20 ms of silence.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// Files in memory. Clones have the same files.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Files>>);

#[derive(Default)]
struct Files {
    begun: Vec<Rc<RefCell<Cursor<Vec<u8>>>>>,
    complete: usize,
    /// The disk is full when this number of bytes is left.
    free_bytes: Option<usize>,
}

struct MemoryFile {
    contents: Rc<RefCell<Cursor<Vec<u8>>>>,
    disk: Memory,
}

impl Store for Memory {
    type File = MemoryFile;

    fn create(&mut self, _: VideoCodec) -> io::Result<MemoryFile> {
        let contents = Rc::default();
        self.0.borrow_mut().begun.push(Rc::clone(&contents));
        Ok(MemoryFile { contents, disk: self.clone() })
    }

    fn complete(&mut self, _: MemoryFile) -> io::Result<()> {
        self.0.borrow_mut().complete += 1;
        Ok(())
    }
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk.0.borrow_mut();
        let room = disk.free_bytes.unwrap_or(bytes.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.free_bytes = disk.free_bytes.map(|free| free - room);
        self.contents.borrow_mut().write(&bytes[..room])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for MemoryFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.contents.borrow_mut().seek(position)
    }
}

/// A room that is recorded, in simulated time.
struct Bench {
    disk: Memory,
    recorder: Recorder<Memory>,
    start: Instant,
    encoder: Encoder,
    picture: I420,
    /// The time of the effect.
    latency_ms: u64,
    has_sound: bool,
    now_ms: u64,
    /// The times of the pictures whose effect is not done yet.
    waiting: Vec<u64>,
}

impl Bench {
    fn new(codec: VideoCodec) -> Self {
        let config = EncoderConfig { codec, bitrate_bps: 300_000, frame_rate: 30.0, speed: Speed::Fast };
        let disk = Memory::default();
        Self {
            recorder: Recorder::new(disk.clone(), Duration::from_secs(60)),
            disk,
            start: Instant::now(),
            encoder: Encoder::new(config).unwrap(),
            picture: I420::grey(64, 48, 90),
            latency_ms: 100,
            has_sound: true,
            now_ms: 0,
            waiting: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Lets this time pass, with pictures and sound.
    fn play(&mut self, ms: u64) -> io::Result<()> {
        for _ in 0..ms {
            let now_ms = self.now_ms;
            if self.has_sound && now_ms.is_multiple_of(20) {
                let sound = Sound { timestamp: now_ms * 48, arrived: self.at(now_ms), data: SILENCE.into() };
                self.recorder.on_sound(sound)?;
            }
            if now_ms.is_multiple_of(FRAME_MS) {
                self.waiting.push(now_ms);
            }
            if self.waiting.first().is_some_and(|arrived| arrived + self.latency_ms <= now_ms) {
                let arrived = self.waiting.remove(0);
                self.frame(arrived, false)?;
            }
            self.recorder.poll(self.at(now_ms))?;
            self.now_ms += 1;
        }
        Ok(())
    }

    fn frame(&mut self, arrived_ms: u64, keyframe: bool) -> io::Result<()> {
        let frame = self.encoder.encode(&self.picture, MediaTime(arrived_ms * 90), keyframe).unwrap().unwrap();
        self.recorder.on_frame(frame, self.at(arrived_ms))
    }

    /// Begins with a keyframe the next time.
    fn keyframe(&mut self) {
        let arrived = self.waiting.remove(0);
        self.frame(arrived, true).unwrap();
    }

    fn files(&self) -> Vec<Parsed> {
        self.disk.0.borrow().begun.iter().map(|file| Parsed::read(file.borrow().get_ref())).collect()
    }
}

/// What a file contains.
#[derive(Debug, Default)]
struct Parsed {
    doc_type: String,
    duration_ms: Option<f64>,
    width: u64,
    codecs: Vec<String>,
    blocks: Vec<ReadBlock>,
    clusters: Vec<u64>,
    /// The times of the index.
    cues: Vec<u64>,
    has_seek_head: bool,
}

#[derive(Debug, Clone, Copy)]
struct ReadBlock {
    track: u8,
    ms: u64,
    keyframe: bool,
    bytes: usize,
}

impl Parsed {
    fn read(bytes: &[u8]) -> Self {
        let mut parsed = Self::default();
        for Element { id, contents, .. } in elements(bytes) {
            match id {
                0x1a45_dfa3 => parsed.doc_type = text(child(contents, 0x4282)),
                0x1853_8067 => parsed.read_segment(contents),
                id => panic!("{id:x}"),
            }
        }
        parsed
    }

    fn read_segment(&mut self, segment: &[u8]) {
        for Element { id, contents, position } in elements(segment) {
            match id {
                0x114d_9b74 => self.has_seek_head = true,
                0x1549_a966 => {
                    let duration = elements(contents).find(|element| element.id == 0x4489);
                    self.duration_ms = duration.map(|duration| f64::from_be_bytes(duration.contents.try_into().unwrap()));
                }
                0x1654_ae6b => {
                    self.codecs = elements(contents).map(|track| text(child(track.contents, 0x86))).collect();
                    self.width = number(child(child(child(contents, 0xae), 0xe0), 0xb0));
                }
                0x1f43_b675 => self.read_cluster(contents),
                0x1c53_bb6b => {
                    for Element { contents, .. } in elements(contents) {
                        self.cues.push(number(child(contents, 0xb3)));
                        let at = number(child(child(contents, 0xb7), 0xf1)) as usize;
                        assert_eq!(segment[at..at + 4], [0x1f, 0x43, 0xb6, 0x75], "a cluster is at {at}");
                    }
                    assert!(segment.windows(8).any(|bytes| bytes == (position as u64).to_be_bytes()), "the index can be found");
                }
                0xec => {}
                id => panic!("{id:x}"),
            }
        }
    }

    fn read_cluster(&mut self, cluster: &[u8]) {
        let begin = number(child(cluster, 0xe7));
        self.clusters.push(begin);
        for Element { contents, .. } in elements(cluster).filter(|element| element.id == 0xa3) {
            let offset = i16::from_be_bytes([contents[1], contents[2]]);
            let ms = begin.checked_add_signed(offset.into()).unwrap();
            self.blocks.push(ReadBlock { track: contents[0] & 0x7f, ms, keyframe: contents[3] & 0x80 != 0, bytes: contents.len() - 4 });
        }
    }

    fn of(&self, track: u8) -> Vec<u64> {
        self.blocks.iter().filter(|block| block.track == track).map(|block| block.ms).collect()
    }

    /// Asserts what holds for every file.
    fn assert_sound(&self) {
        let first = self.blocks.iter().find(|block| block.track == 1).unwrap();
        assert!(first.keyframe && first.ms == 0, "{first:?}");
        for track in [1, 2] {
            assert!(self.of(track).is_sorted_by(|a, b| a < b), "{:?}", self.of(track));
        }
        assert!(self.blocks.is_sorted_by_key(|block| block.ms), "pictures and sound are in order");
        assert!(self.blocks.iter().all(|block| block.bytes > 0));
        assert!(self.clusters.windows(2).all(|pair| pair[1] - pair[0] <= 1100), "{:?}", self.clusters);
    }
}

struct Element<'a> {
    id: u32,
    contents: &'a [u8],
    position: usize,
}

fn elements(bytes: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let position = at;
        let first = *bytes.get(at)?;
        let id_bytes = first.leading_zeros() as usize + 1;
        let id = bytes[at..at + id_bytes].iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        at += id_bytes;
        let length_bytes = bytes[at].leading_zeros() as usize + 1;
        let length = bytes[at..at + length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        let length = length ^ 1 << (7 * length_bytes);
        at += length_bytes;
        let end = if length == (1 << 56) - 1 { bytes.len() } else { at + length as usize };
        let contents = &bytes[at..end];
        at = end;
        Some(Element { id, contents, position })
    })
}

fn child(bytes: &[u8], id: u32) -> &[u8] {
    elements(bytes).find(|element| element.id == id).unwrap_or_else(|| panic!("{id:x}")).contents
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn files_have_pictures_and_sound_in_order_with_the_times_of_their_arrival() {
    for (codec, doc_type, codecs) in
        [(VideoCodec::Vp8, "webm", ["V_VP8", "A_OPUS"]), (VideoCodec::H264, "matroska", ["V_MPEG4/ISO/AVC", "A_OPUS"])]
    {
        let mut bench = Bench::new(codec);
        bench.play(5000).unwrap();
        let length = bench.disk.0.borrow().begun[0].borrow().get_ref().len() as u64;
        assert_eq!((bench.recorder.take_written_bytes(), bench.recorder.take_written_bytes()), (length, 0));
        bench.recorder.end().unwrap();
        let [file] = &bench.files()[..] else { panic!("one file") };
        file.assert_sound();
        assert_eq!((file.doc_type.as_str(), &file.codecs[..], file.width), (doc_type, &codecs.map(String::from)[..], 64));
        let expected: Vec<u64> = (0..=(4999 - bench.latency_ms) / FRAME_MS).map(|frame| frame * FRAME_MS).collect();
        assert_eq!(file.of(1), expected, "every picture");
        assert_eq!(file.of(2), (0..250).map(|packet| packet * 20).collect::<Vec<_>>(), "every packet, in sync");
        assert_eq!(file.duration_ms, Some(5000.0), "to the end of the last packet");
        assert_eq!((bench.disk.0.borrow().complete, &file.cues[..], file.has_seek_head), (1, &[0][..], true));
    }
}

#[test]
fn everything_but_the_last_second_is_in_the_file_at_any_time() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    for ms in (0..4000).step_by(100) {
        bench.play(100).unwrap();
        let files = bench.files();
        let last = files.first().map_or(0, |file| file.of(1).into_iter().max().unwrap());
        assert!(last + 1000 >= ms, "{last} of {ms}");
        if let Some(file) = files.first() {
            file.assert_sound();
            assert_eq!(file.duration_ms, None, "it is not complete");
        }
    }
}

#[test]
fn another_size_begins_another_file_without_a_gap() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    bench.play(2000).unwrap();
    bench.picture = I420::grey(32, 32, 90);
    bench.play(2000).unwrap();
    bench.recorder.end().unwrap();
    let files = bench.files();
    files.iter().for_each(Parsed::assert_sound);
    assert_eq!(files.iter().map(|file| file.width).collect::<Vec<_>>(), [64, 32]);
    // The first picture of the new size arrived at 1914 ms: those before waited for their effect.
    let begin = files[0].duration_ms.unwrap();
    assert!((1900.0..2000.0).contains(&begin) && begin % FRAME_MS as f64 == 0.0, "{begin}");
    assert_eq!(begin + files[1].duration_ms.unwrap(), 4000.0);
    let packets: usize = files.iter().map(|file| file.of(2).len()).sum();
    assert_eq!(packets, 200, "every packet of sound is in one of them");
}

#[test]
fn sound_that_comes_later_and_the_longest_duration_begin_another_file_at_a_keyframe() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    bench.has_sound = false;
    bench.play(2000).unwrap();
    bench.has_sound = true;
    bench.play(500).unwrap();
    assert_eq!(bench.files().len(), 1);
    bench.keyframe();
    bench.play(58_000).unwrap();
    bench.keyframe();
    bench.play(4000).unwrap();
    bench.keyframe();
    bench.play(1000).unwrap();
    let files = bench.files();
    files.iter().for_each(Parsed::assert_sound);
    assert_eq!(files.iter().map(|file| file.codecs.len()).collect::<Vec<_>>(), [1, 2, 2]);
    assert!(files[1].duration_ms.is_some_and(|ms| (60_000.0..63_000.0).contains(&ms)), "{:?}", files[1].duration_ms);
    assert_eq!(files[1].cues.len(), 2, "each keyframe can be found");
}

#[test]
fn pictures_that_stop_do_not_hold_up_the_sound() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    bench.play(1000).unwrap();
    bench.latency_ms = 1_000_000;
    bench.play(3000).unwrap();
    let file = &bench.files()[0];
    file.assert_sound();
    assert!(file.of(2).last().is_some_and(|ms| *ms + 1100 > 4000), "{:?}", file.of(2).last());
}

#[test]
fn nothing_is_written_before_a_keyframe_and_no_sound_before_the_picture() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    // The recording has not got the first frame of the encoder.
    bench.encoder.encode(&bench.picture, MediaTime(0), false).unwrap().unwrap();
    bench.play(3000).unwrap();
    assert!(bench.files().is_empty() && bench.recorder.pending.len() <= 101, "only two seconds of sound are kept");
    bench.keyframe();
    bench.play(1000).unwrap();
    bench.recorder.end().unwrap();
    let file = &bench.files()[0];
    file.assert_sound();
    assert!(file.of(2)[0] < 20 && file.duration_ms.is_some_and(|ms| ms > 1000.0 && ms < 1150.0), "{file:?}");
}

#[test]
fn full_disk_is_an_error_and_what_was_written_before_is_whole() {
    let mut bench = Bench::new(VideoCodec::Vp8);
    bench.play(3000).unwrap();
    let before = bench.files()[0].blocks.len();
    bench.disk.0.borrow_mut().free_bytes = Some(0);
    let error = bench.play(2000).unwrap_err();
    assert_eq!((error.kind(), bench.files()[0].blocks.len()), (io::ErrorKind::StorageFull, before));
    assert_eq!(bench.disk.0.borrow().complete, 0);
}
