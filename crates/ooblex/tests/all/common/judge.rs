//! Judges the pictures of a session with the effect `delay`. That effect inverts luma, so a
//! processed picture has a strongly negative correlation with its source, while a placeholder is
//! uniform grey.

use ooblex_pipeline::{I420, MediaTime};

use super::{Player, Shown};

/// Classification of a received picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The picture went through a worker.
    Processed,
    /// The picture is uniform.
    Placeholder,
    /// The picture resembles its source. This must never happen.
    Raw,
}

impl Player {
    pub fn look(&self, shown: &Shown) -> Look {
        *shown.look.get_or_init(|| match likeness(&shown.picture, &self.source_of(shown)) {
            alike if alike < -0.5 => Look::Processed,
            alike if alike < 0.2 => Look::Placeholder,
            _ => Look::Raw,
        })
    }

    /// Returns the number of processed pictures of frames sent after `mark`, without held pictures
    /// and placeholders.
    pub fn processed_since(&self, mark: MediaTime) -> usize {
        self.of_sent_frames().filter(|shown| shown.capture > mark && self.look(shown) == Look::Processed).count()
    }

    /// Asserts what holds for every session with `delay`, whatever happens to workers and Redis:
    /// the session is connected, its pictures are in capture order, and none is unprocessed.
    pub fn assert_sound(&self) {
        assert!(!self.ended, "the session stands");
        let back = self.shown.windows(2).find(|pair| pair[0].capture >= pair[1].capture);
        assert!(back.is_none(), "{:?} was shown before {:?}", back.unwrap()[0].capture, back.unwrap()[1].capture);
        let raw = self.shown.iter().position(|shown| self.look(shown) == Look::Raw);
        assert!(raw.is_none(), "picture {} of {} is raw", raw.unwrap(), self.shown.len());
    }
}

/// Returns the correlation of two pictures' luma: 1 for identical pictures, -1 for a picture and
/// its negative, and about 0 if either is nearly uniform.
pub fn likeness(a: &I420, b: &I420) -> f64 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let (a, b) = (a.planes()[0], b.planes()[0]);
    let mean = |plane: &[u8]| plane.iter().map(|luma| f64::from(*luma)).sum::<f64>() / plane.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a) - mean_a, f64::from(*b) - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    // Codecs leave a uniform picture almost uniform, so a standard deviation below two levels
    // counts as none.
    let count = a.len() as f64;
    if of_a < 4.0 * count || of_b < 4.0 * count { 0.0 } else { both / (of_a * of_b).sqrt() }
}
