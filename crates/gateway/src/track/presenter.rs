//! The presenter of a track: its painters, the picture that the browser sees, and what stands in
//! for a processed picture.
//!
//! The raw picture never leaves it: a picture is released only after [`Presenter::compose`] has
//! succeeded, or as a stand-in that was painted under the settings in force, made safe by the
//! effect's placeholder, or plain grey. Time is an argument.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_effects::{ChainPainter, Found};
use ooblex_pipeline::{Analysis, DropReason, EffectName, Generation, I420, MediaTime, ModelInput, Size, View};
use serde_json::Value;
use tracing::debug;

use super::analysis::Pending;
use super::stills::Stills;
use crate::ids::SessionId;
use crate::settings::Settings;

/// Changes of settings that wait for their first frame, at most.
pub(super) const MAX_PENDING_ACKS: usize = 64;
/// A browser that needs a picture gets a stand-in when no processed picture was sent for this time.
const STARVED_AFTER: Duration = Duration::from_millis(250);
/// The luma of a grey stand-in, where nothing better is there.
const PLACEHOLDER_LUMA: u8 = 64;

/// The presenter of one track.
pub(super) struct Presenter {
    session: SessionId,
    /// The painters by effect and version: that in force, and that of the frame shown last.
    painters: HashMap<EffectName, ChainPainter>,
    /// The view of the frame composed last.
    view: View,
    /// The picture that was sent last.
    shown: Option<Shown>,
    /// The newest frame that was dropped before any picture was sent. A stand-in is made of it.
    unshown: Option<Pending>,
    /// Single pictures for those who ask for one.
    pub(super) stills: Stills,
    /// When to send a stand-in. `None`: the browser needs no picture.
    starved_at: Option<Instant>,
    /// Changes that wait for their first frame, oldest first.
    acks: VecDeque<PendingAck>,
}

/// A picture that was sent.
struct Shown {
    picture: I420,
    settings: Arc<Settings>,
    /// It was not made by `compose`.
    is_placeholder: bool,
}

/// A change of settings that is to be acknowledged with its first frame.
struct PendingAck {
    generation: Generation,
    /// The id of the browser's request.
    id: Value,
}

/// A picture that stands in for a processed one.
pub(super) struct StandIn {
    pub(super) picture: I420,
    /// The capture time of the newest frame.
    pub(super) capture: Option<MediaTime>,
    is_placeholder: bool,
}

impl Presenter {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            session,
            painters: HashMap::new(),
            view: View::default(),
            shown: None,
            unshown: None,
            stills: Stills::default(),
            starved_at: None,
            acks: VecDeque::new(),
        }
    }

    // Painters. A panic of one costs its frame; the next frame gets a new painter.

    /// Makes the inputs of the models, each with the index of its effect in the chain. `None`: the
    /// painter panicked.
    pub(super) fn prepare(&mut self, picture: &I420, settings: &Settings) -> Option<Vec<(usize, ModelInput)>> {
        let painter = self.painter(settings);
        let prepared = catch_unwind(AssertUnwindSafe(|| painter.prepare(picture, &settings.parameters)));
        prepared.inspect_err(|_| _ = self.painters.remove(&settings.effect.version())).ok()
    }

    /// Paints a picture of this view. Returns what its effects have found, where they look for
    /// something.
    pub(super) fn compose(
        &mut self,
        picture: &mut I420,
        analyses: &[Analysis],
        settings: &Settings,
        view: View,
    ) -> Result<Option<Vec<Found>>, DropReason> {
        if std::mem::replace(&mut self.view, view) != view {
            self.painters.values_mut().for_each(ChainPainter::on_turned);
        }
        let painter = self.painter(settings);
        let composed =
            catch_unwind(AssertUnwindSafe(|| painter.compose(picture, analyses, &settings.parameters).map(|()| painter.found())));
        match composed {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                debug!(session = %self.session, %error, "compose failed");
                Err(DropReason::ComposeFailed)
            }
            Err(_) => {
                self.painters.remove(&settings.effect.version());
                Err(DropReason::ComposeFailed)
            }
        }
    }

    /// Makes the input of a model smaller from now on. Returns false if none can be.
    pub(super) fn shrink_input(&mut self, settings: &Settings) -> bool {
        self.painters.get_mut(&settings.effect.version()).is_some_and(ChainPainter::shrink_input)
    }

    /// Makes the input of a model larger from now on, if the workers' utilisation allows that.
    /// Returns false if not.
    pub(super) fn grow_input(&mut self, settings: &Settings, utilisation: f32) -> bool {
        self.painters.get_mut(&settings.effect.version()).is_some_and(|painter| painter.grow_input(utilisation))
    }

    fn painter(&mut self, settings: &Settings) -> &mut ChainPainter {
        self.painters.entry(settings.effect.version()).or_insert_with(|| settings.effect.painter())
    }

    // The picture that is shown

    /// Notes that a frame was admitted. The first one starts the wait for a picture.
    pub(super) fn on_admitted(&mut self, now: Instant) {
        if self.shown.is_none() {
            self.need_picture(now);
        }
    }

    /// The browser needs a picture, such as one to decode: it gets a stand-in if no processed one
    /// comes soon.
    pub(super) fn need_picture(&mut self, now: Instant) {
        self.starved_at.get_or_insert(now + STARVED_AFTER);
    }

    /// Notes a frame that will not be shown.
    pub(super) fn on_dropped(&mut self, frame: Pending) {
        self.unshown = self.shown.is_none().then_some(frame);
    }

    /// Notes a processed picture that was sent. Painters of settings other than its own and those
    /// in force are dropped.
    pub(super) fn on_shown(&mut self, picture: I420, settings: Arc<Settings>, in_force: &Settings) {
        let (shown, current) = (settings.effect.version(), in_force.effect.version());
        self.painters.retain(|name, _| *name == shown || *name == current);
        self.starved_at = None;
        self.unshown = None;
        self.shown = Some(Shown { picture, settings, is_placeholder: false });
    }

    /// Tells whether the browser sees a picture that was not made by its effect.
    pub(super) fn is_placeholder(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| shown.is_placeholder)
    }

    // Stand-ins

    /// Returns when a stand-in is due.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.starved_at
    }

    /// Tells whether a stand-in is due.
    pub(super) fn is_starved(&self, now: Instant) -> bool {
        self.starved_at.is_some_and(|at| at <= now)
    }

    /// Waits for a picture anew, since the network could not take a stand-in.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.starved_at = Some(now + STARVED_AFTER);
    }

    /// Makes a stand-in: the picture shown last if it was made under the settings in force, or one
    /// that their effect has made safe. `waiting` is the oldest frame that waits, so that no later
    /// picture is older than the stand-in, and `size` is that of the camera's pictures. `None`: there
    /// is no camera yet. Call [`Presenter::on_stand_in`] once it is sent.
    pub(super) fn stand_in(&mut self, waiting: Option<&Pending>, settings: &Arc<Settings>, size: Option<Size>) -> Option<StandIn> {
        let unshown = waiting.or(self.unshown.as_ref());
        let capture = unshown.map(|pending| pending.capture);
        let unshown = unshown.filter(|_| self.shown.is_none()).map(|pending| pending.picture.clone());
        let (picture, is_placeholder) = match (self.shown.take(), unshown) {
            (Some(shown), _) if Arc::ptr_eq(&shown.settings, settings) => (shown.picture, shown.is_placeholder),
            (Some(Shown { picture, .. }), _) | (None, Some(picture)) => (self.made_safe(picture, settings), true),
            (None, None) => {
                let Some(Size { width, height }) = size else {
                    self.starved_at = None;
                    return None;
                };
                (I420::grey(width, height, PLACEHOLDER_LUMA), true)
            }
        };
        self.unshown = None;
        Some(StandIn { picture, capture, is_placeholder })
    }

    /// Notes that a stand-in was sent.
    pub(super) fn on_stand_in(&mut self, now: Instant, stand_in: StandIn, settings: Arc<Settings>) {
        self.starved_at = Some(now + 2 * STARVED_AFTER);
        self.keep(stand_in, settings);
    }

    /// Keeps a stand-in, from which the next one is made.
    pub(super) fn keep(&mut self, stand_in: StandIn, settings: Arc<Settings>) {
        self.shown = Some(Shown { picture: stand_in.picture, settings, is_placeholder: stand_in.is_placeholder });
    }

    fn made_safe(&mut self, mut picture: I420, settings: &Settings) -> I420 {
        let painter = self.painter(settings);
        let painted = catch_unwind(AssertUnwindSafe(|| painter.placeholder(&mut picture, &settings.parameters)));
        match painted {
            Ok(()) => picture,
            Err(_) => I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA),
        }
    }

    // Acknowledgements

    /// Notes a change that is to be acknowledged with its first frame. Returns the id of the oldest
    /// one if more than [`MAX_PENDING_ACKS`] wait.
    pub(super) fn push_ack(&mut self, generation: Generation, id: Value) -> Option<Value> {
        self.acks.push_back(PendingAck { generation, id });
        if self.acks.len() > MAX_PENDING_ACKS { self.acks.pop_front().map(|ack| ack.id) } else { None }
    }

    /// Returns the id of the next change that a frame of this generation acknowledges. Call it
    /// until it returns `None`.
    pub(super) fn next_ack(&mut self, shown: Generation) -> Option<Value> {
        self.acks.pop_front_if(|ack| ack.generation <= shown).map(|ack| ack.id)
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::{Mask, Mode};
    use serde_json::json;

    use super::*;
    use crate::settings::Catalogue;
    use ooblex_config::Config;

    const SIZE: (u32, u32) = (64, 48);

    /// A presenter with literal times in milliseconds.
    struct Bench {
        presenter: Presenter,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { presenter: Presenter::new(SessionId(1)), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Returns when the next stand-in is due, in milliseconds.
        fn due(&self) -> Option<u128> {
            self.presenter.next_wakeup().map(|at| (at - self.start).as_millis())
        }

        /// Sends a stand-in at this time, and returns the luma of its first pixel.
        fn stand_in(&mut self, ms: u64, waiting: Option<&Pending>, settings: &Arc<Settings>) -> Option<u8> {
            let now = self.at(ms);
            let stand_in = self.presenter.stand_in(waiting, settings, Some(Size::new(SIZE.0, SIZE.1)))?;
            let luma = stand_in.picture.planes()[0][0];
            self.presenter.on_stand_in(now, stand_in, settings.clone());
            Some(luma)
        }
    }

    fn settings(effect: &str) -> Arc<Settings> {
        let catalogue = Catalogue::new(&Config::default()).unwrap();
        Arc::new(catalogue.settings(Some(effect), &Value::Null).unwrap())
    }

    /// Alternating columns of luma 16 and 235.
    fn stripes() -> I420 {
        let mut picture = I420::grey(SIZE.0, SIZE.1, 16);
        picture.planes_mut()[0].iter_mut().step_by(2).for_each(|luma| *luma = 235);
        picture
    }

    fn pending(luma: u8, settings: &Arc<Settings>) -> Pending {
        Pending {
            picture: I420::grey(SIZE.0, SIZE.1, luma),
            capture: MediaTime(u64::from(luma)),
            arrived: Instant::now(),
            view: View(0),
            settings: settings.clone(),
        }
    }

    #[test]
    fn a_stand_in_is_due_a_quarter_second_after_the_first_frame_and_then_every_half_second() {
        let (mut b, none) = (Bench::new(), settings("none"));
        assert_eq!(b.due(), None);
        b.presenter.on_admitted(b.at(0));
        b.presenter.on_admitted(b.at(33));
        assert_eq!(b.due(), Some(250));
        assert!(!b.presenter.is_starved(b.at(249)) && b.presenter.is_starved(b.at(250)));
        b.stand_in(250, Some(&pending(90, &none)), &none);
        assert_eq!(b.due(), Some(750));
        b.presenter.postpone(b.at(750));
        assert_eq!(b.due(), Some(1000));
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 90), none.clone(), &none);
        assert_eq!(b.due(), None);
    }

    #[test]
    fn after_a_picture_only_a_need_for_one_makes_a_stand_in_due() {
        let (mut b, none) = (Bench::new(), settings("none"));
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 90), none.clone(), &none);
        b.presenter.on_admitted(b.at(0));
        assert_eq!(b.due(), None);
        b.presenter.need_picture(b.at(100));
        b.presenter.need_picture(b.at(200));
        assert_eq!(b.due(), Some(350));
    }

    #[test]
    fn a_picture_of_the_settings_in_force_is_held_and_is_no_placeholder() {
        let (mut b, sepia) = (Bench::new(), settings("sepia"));
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 77), sepia.clone(), &sepia);
        assert_eq!(b.stand_in(0, Some(&pending(90, &sepia)), &sepia), Some(77));
        assert!(!b.presenter.is_placeholder());
    }

    #[test]
    fn a_picture_of_other_settings_is_painted_by_the_placeholder_of_those_in_force() {
        let (mut b, none, invert) = (Bench::new(), settings("none"), settings("invert"));
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 77), none.clone(), &none);
        let luma = b.stand_in(0, None, &invert).unwrap();
        assert_ne!(luma, 77);
        assert!(b.presenter.is_placeholder());
        assert_eq!(b.stand_in(500, None, &invert), Some(luma), "and held from then on");
        assert!(b.presenter.is_placeholder());
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 77), invert.clone(), &invert);
        assert!(!b.presenter.is_placeholder());
    }

    #[test]
    fn a_dropped_frame_is_made_safe_before_the_first_picture_and_forgotten_after_it() {
        let (mut b, none) = (Bench::new(), settings("none"));
        b.presenter.on_dropped(pending(33, &none));
        b.presenter.on_dropped(pending(44, &none));
        let stand_in = b.presenter.stand_in(None, &none, None).unwrap();
        assert_eq!((stand_in.picture.planes()[0][0], stand_in.capture), (44, Some(MediaTime(44))), "the newest");
        b.presenter.on_shown(I420::grey(SIZE.0, SIZE.1, 90), none.clone(), &none);
        b.presenter.on_dropped(pending(55, &none));
        assert!(b.presenter.unshown.is_none());
    }

    #[test]
    fn without_any_frame_the_stand_in_is_grey_and_without_a_camera_there_is_none() {
        let (mut b, blur) = (Bench::new(), settings("background_blur"));
        b.presenter.need_picture(b.at(0));
        assert_eq!(b.stand_in(250, None, &blur), Some(PLACEHOLDER_LUMA));
        let mut b = Bench::new();
        b.presenter.need_picture(b.at(0));
        assert!(b.presenter.stand_in(None, &blur, None).is_none());
        assert_eq!(b.due(), None);
    }

    #[test]
    fn an_effect_that_lacks_its_analysis_releases_nothing() {
        let (mut b, blur) = (Bench::new(), settings("background_blur"));
        assert_ne!(blur.mode, Mode::Direct);
        let mut picture = I420::grey(SIZE.0, SIZE.1, 90);
        assert_eq!(b.presenter.compose(&mut picture, &[], &blur, View(0)).err(), Some(DropReason::ComposeFailed));
    }

    #[test]
    fn a_turned_picture_has_nothing_of_what_was_painted_before_it() {
        let (mut b, blur) = (Bench::new(), settings("background_blur"));
        let mask = |level| [Analysis::Mask(Mask { width: 16, height: 9, probability: vec![level; 16 * 9] })];
        let mut composed = |level, view| {
            let mut picture = stripes();
            b.presenter.compose(&mut picture, &mask(level), &blur, View(view)).unwrap();
            picture
        };
        (0..5).for_each(|_| _ = composed(120, 0));
        let smoothed = composed(130, 0);
        let turned = composed(130, 1);
        let mut fresh = stripes();
        Presenter::new(SessionId(2)).compose(&mut fresh, &mask(130), &blur, View(0)).unwrap();
        assert!(smoothed != fresh, "masks are smoothed over time");
        assert!(turned == fresh, "but not across a turn");
    }

    #[test]
    fn painters_of_settings_no_longer_shown_or_in_force_are_dropped() {
        let (mut b, [none, sepia, invert]) = (Bench::new(), ["none", "sepia", "invert"].map(settings));
        let mut picture = I420::grey(SIZE.0, SIZE.1, 90);
        for settings in [&none, &sepia, &invert] {
            b.presenter.compose(&mut picture, &[], settings, View(0)).unwrap();
        }
        b.presenter.on_shown(picture, sepia.clone(), &invert);
        let mut left: Vec<_> = b.presenter.painters.keys().map(EffectName::to_string).collect();
        left.sort();
        assert_eq!(left, ["invert", "sepia"]);
    }

    #[test]
    fn a_frame_acknowledges_all_changes_up_to_its_own() {
        let mut b = Bench::new();
        (1..=3).for_each(|change| assert_eq!(b.presenter.push_ack(Generation(change), json!(change)), None));
        assert_eq!(b.presenter.next_ack(Generation(0)), None);
        assert_eq!(b.presenter.next_ack(Generation(2)), Some(json!(1)));
        assert_eq!(b.presenter.next_ack(Generation(2)), Some(json!(2)));
        assert_eq!(b.presenter.next_ack(Generation(2)), None);
        assert_eq!(b.presenter.next_ack(Generation(7)), Some(json!(3)));
    }

    #[test]
    fn the_oldest_of_too_many_pending_changes_is_given_up() {
        let mut b = Bench::new();
        (0..MAX_PENDING_ACKS as u64).for_each(|change| assert_eq!(b.presenter.push_ack(Generation(change), json!(change)), None));
        assert_eq!(b.presenter.push_ack(Generation(64), json!(64)), Some(json!(0)));
    }
}
