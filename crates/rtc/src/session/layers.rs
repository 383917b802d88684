//! Simulcast: a camera that arrives several times at once, in several sizes (layers). The track
//! receives the largest layer that arrives. Time is an argument.
//!
//! A change of layers happens at a keyframe. A layer that has not brought one is asked for it. The
//! timestamps of layers begin at different numbers; those that the track sees go on without a jump.

use std::time::{Duration, Instant};

use str0m::media::Rid;

/// Layers that are known at a time; browsers send three.
const MAX_LAYERS: usize = 8;
/// Silence after which a layer counts as stopped, while others arrive.
const STOPPED_AFTER: Duration = Duration::from_secs(1);
/// Time between two requests for a keyframe of a layer.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Ticks of a media clock in a second.
const TICKS: f64 = 90_000.0;

/// The layers of one camera. Video without simulcast has one layer without a RID.
#[derive(Debug, Default)]
pub(super) struct Layers {
    known: Vec<Layer>,
    /// The layer that the track receives, an index of `known`.
    selected: usize,
    /// What the timestamps of the selected layer are moved by.
    shift: u64,
}

#[derive(Debug)]
struct Layer {
    rid: Option<Rid>,
    /// Pixels of its last keyframe; 0 before the first.
    pixels: u64,
    last: Arrival,
    asked_at: Option<Instant>,
}

/// The arrival of the last frame of a layer.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Instant,
    /// The timestamp of the frame.
    time: u64,
}

/// A frame of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerFrame {
    pub(super) rid: Option<Rid>,
    pub(super) time: u64,
    /// Pixels of the picture if this is a keyframe.
    pub(super) keyframe_pixels: Option<u64>,
}

/// What is done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The track receives it, with this timestamp.
    Take { time: u64 },
    /// It is left out, because the track receives another layer.
    Leave,
    /// It is left out, and a keyframe of its layer is requested, which may be taken.
    Ask,
}

impl Layers {
    /// Returns the RID of the layer that the track receives.
    pub(super) fn selected(&self) -> Option<Rid> {
        self.known.get(self.selected).and_then(|layer| layer.rid)
    }

    /// Chooses what is done with a frame.
    pub(super) fn choose(&mut self, now: Instant, frame: LayerFrame) -> Choice {
        let Some(index) = self.index(now, frame) else { return Choice::Leave };
        let layer = &mut self.known[index];
        layer.last = Arrival { at: now, time: frame.time };
        layer.pixels = frame.keyframe_pixels.unwrap_or(layer.pixels);
        if index == self.selected {
            return Choice::Take { time: frame.time.wrapping_add(self.shift) };
        }
        let (layer, selected) = (&self.known[index], &self.known[self.selected]);
        let has_stopped = now.saturating_duration_since(selected.last.at) > STOPPED_AFTER;
        let is_wanted = has_stopped || layer.pixels == 0 || layer.pixels > selected.pixels;
        if !is_wanted {
            return Choice::Leave;
        }
        if frame.keyframe_pixels.is_none() {
            return self.ask(now, index);
        }
        let passed = now.saturating_duration_since(selected.last.at).as_secs_f64() * TICKS;
        let time = selected.last.time.wrapping_add(self.shift).wrapping_add((passed as u64).max(1));
        self.shift = time.wrapping_sub(frame.time);
        self.selected = index;
        Choice::Take { time }
    }

    /// Returns the index of the layer of a frame. `None`: there are too many.
    fn index(&mut self, now: Instant, frame: LayerFrame) -> Option<usize> {
        let known = self.known.iter().position(|layer| layer.rid == frame.rid);
        known.or_else(|| {
            let is_room = self.known.len() < MAX_LAYERS;
            is_room.then(|| {
                self.known.push(Layer { rid: frame.rid, pixels: 0, last: Arrival { at: now, time: frame.time }, asked_at: None });
                self.known.len() - 1
            })
        })
    }

    fn ask(&mut self, now: Instant, index: usize) -> Choice {
        let layer = &mut self.known[index];
        if layer.asked_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_INTERVAL) {
            return Choice::Leave;
        }
        layer.asked_at = Some(now);
        Choice::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SIZES: [(&str, u64); 3] = [("q", 57_600), ("h", 230_400), ("f", 921_600)];

    struct Camera {
        layers: Layers,
        now: Instant,
        ticks: u64,
    }

    impl Camera {
        fn new() -> Self {
            Self { layers: Layers::default(), now: Instant::now(), ticks: 0 }
        }

        /// A thirtieth of a second passes.
        fn tick(&mut self) {
            self.now += 100 * MS / 3;
            self.ticks += 3000;
        }

        fn frame(&mut self, layer: usize, keyframe: bool) -> Choice {
            let (rid, pixels) = SIZES[layer];
            let time = self.ticks + 1_000_000 * layer as u64;
            self.layers.choose(self.now, LayerFrame { rid: Some(Rid::from(rid)), time, keyframe_pixels: keyframe.then_some(pixels) })
        }

        fn selected(&self) -> String {
            self.layers.selected().map(|rid| rid.to_string()).unwrap_or_default()
        }
    }

    fn is_taken(choice: Choice) -> bool {
        matches!(choice, Choice::Take { .. })
    }

    #[test]
    fn larger_layers_are_taken_from_their_first_keyframe_on() {
        let mut camera = Camera::new();
        assert!(is_taken(camera.frame(0, true)));
        camera.tick();
        assert!(is_taken(camera.frame(2, true)) && !is_taken(camera.frame(0, false)) && !is_taken(camera.frame(1, true)));
        assert_eq!(camera.selected(), "f");
    }

    #[test]
    fn when_the_largest_layer_stops_the_next_is_asked_for_a_keyframe_and_taken() {
        let mut camera = Camera::new();
        (0..3).rev().for_each(|layer| _ = camera.frame(layer, true));
        let mut asked = Vec::new();
        for _ in 0..45 {
            camera.tick();
            asked.push(camera.frame(1, false));
        }
        let first = asked.iter().position(|choice| *choice == Choice::Ask);
        assert_eq!((first, asked.iter().filter(|choice| **choice == Choice::Ask).count()), (Some(30), 1), "a second later, once");
        assert!(is_taken(camera.frame(1, true)) && camera.frame(0, true) == Choice::Leave);
        assert_eq!(camera.selected(), "h");
        camera.tick();
        assert!(camera.frame(2, false) == Choice::Ask && is_taken(camera.frame(2, true)), "it is back");
    }

    #[test]
    fn layer_whose_first_keyframe_was_lost_is_asked_for_another() {
        let mut camera = Camera::new();
        camera.frame(0, true);
        assert_eq!((camera.frame(2, false), camera.frame(2, false)), (Choice::Ask, Choice::Leave));
        (0..31).for_each(|_| camera.tick());
        assert_eq!(camera.frame(2, false), Choice::Ask);
    }

    #[test]
    fn timestamps_go_on_when_the_layer_changes_and_are_unchanged_without_simulcast() {
        let mut camera = Camera::new();
        let mut times = Vec::new();
        let mut take = |choice| match choice {
            Choice::Take { time } => times.push(time),
            Choice::Leave | Choice::Ask => {}
        };
        for n in 0..9 {
            camera.tick();
            take(camera.frame(0, n == 0));
            if n >= 3 {
                take(camera.frame(2, n == 3));
            }
        }
        let steps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(times[0] == 3000 && steps.iter().all(|step| *step == 1 || (2990..=3010).contains(step)), "{times:?}");

        let mut layers = Layers::default();
        let frame = LayerFrame { rid: None, time: 77, keyframe_pixels: None };
        assert_eq!(layers.choose(Instant::now(), frame), Choice::Take { time: 77 });
    }

    #[test]
    fn endless_new_layers_are_left_out() {
        let mut layers = Layers::default();
        let rids = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let choices =
            rids.map(|rid| layers.choose(Instant::now(), LayerFrame { rid: Some(Rid::from(rid)), time: 0, keyframe_pixels: None }));
        assert_eq!((choices[7], choices[8], layers.known.len()), (Choice::Ask, Choice::Leave, MAX_LAYERS));
    }
}
