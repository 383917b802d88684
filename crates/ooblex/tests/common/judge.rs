//! What a session that has the effect `delay` on was shown. That effect turns luma round, so a picture that went through a
//! worker is as unlike its source as can be; the placeholder is plain grey.

use ooblex_pipeline::{I420, MediaTime};

use super::{Player, Shown};

/// What was made of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A worker had it.
    Processed,
    /// Nothing can be seen on it.
    Placeholder,
    /// It looks like its source. This must not be.
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

    /// Processed pictures of frames that were sent after `mark`: none that was held or stood in for one.
    pub fn processed_since(&self, mark: MediaTime) -> usize {
        self.of_sent_frames().filter(|shown| shown.capture > mark && self.look(shown) == Look::Processed).count()
    }

    /// What holds for every session with `delay` on, whatever happens to workers and Redis: it stands, what it was shown is in
    /// the order of capture, and nothing of it is raw.
    pub fn assert_sound(&self) {
        assert!(!self.ended, "the session stands");
        let back = self.shown.windows(2).find(|pair| pair[0].capture >= pair[1].capture);
        assert!(back.is_none(), "{:?} was shown before {:?}", back.unwrap()[0].capture, back.unwrap()[1].capture);
        let raw = self.shown.iter().position(|shown| self.look(shown) == Look::Raw);
        assert!(raw.is_none(), "picture {} of {} is raw", raw.unwrap(), self.shown.len());
    }
}

/// The correlation of the luma of two pictures: 1 for pictures that are alike, -1 for a picture and its negative, about 0 for one
/// on which nothing can be seen.
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
    // Codecs leave a plain picture almost plain: a deviation below two levels is none.
    let count = a.len() as f64;
    if of_a < 4.0 * count || of_b < 4.0 * count { 0.0 } else { both / (of_a * of_b).sqrt() }
}
