//! The notices of a track to its browser: which settings are in force, and whether workers serve
//! their effect.
//!
//! A change is told at once and once, over the data channel; the reports of [`super::report`]
//! repeat the state of the service. While no worker serves an effect the picture is held, which is
//! [`super::presenter`]'s part.

use std::sync::Arc;

use ooblex_broker::{Broker, Service};
use ooblex_effects::Effect;
use ooblex_pipeline::{DropReason, EffectName};

use crate::problem::{Problem, ProblemKind, start_a_worker};
use crate::settings::{ChangedBy, Settings};

/// The state that the browser knows from notices.
#[derive(Default)]
pub(super) struct NotifiedState {
    /// The data channel is open.
    is_open: bool,
    /// The last notice about the service. `None`: the browser takes its effect to be served.
    unserved: Option<Unserved>,
    /// The origin of the last change of settings, while the data channel is not open yet.
    pending_change: Option<ChangedBy>,
}

/// An effect that is not served.
#[derive(Debug, Clone, PartialEq)]
struct Unserved {
    /// The effect or chain in force.
    effect: EffectName,
    service: Service,
}

/// An effect of a chain whose frames reach no worker.
pub(super) struct Lacking {
    pub(super) effect: Arc<dyn Effect>,
    /// Why they reach none. Never [`Service::Served`].
    pub(super) service: Service,
}

impl NotifiedState {
    /// Notes that the data channel is open. Returns the origin of a change of settings that is to
    /// be told now.
    pub(super) fn on_open(&mut self) -> Option<ChangedBy> {
        self.is_open = true;
        self.pending_change.take()
    }

    /// Notes a change of settings. Returns whether the browser is to be told now: not of a change
    /// that it has made itself, and not before the data channel is open.
    pub(super) fn on_settings(&mut self, by: ChangedBy) -> bool {
        if by == ChangedBy::Channel {
            return false;
        }
        if !self.is_open {
            self.pending_change = Some(by);
        }
        self.is_open
    }

    /// Notes the service of the effect in force. Returns whether the browser is to be told, because
    /// it knows otherwise.
    pub(super) fn on_service(&mut self, effect: &EffectName, service: Service) -> bool {
        if !self.is_open {
            return false;
        }
        let now = (service != Service::Served).then(|| Unserved { effect: effect.clone(), service });
        let is_news = self.unserved != now;
        self.unserved = now;
        is_news
    }
}

/// Returns the first effect of the chain in force whose frames reach no worker now.
pub(super) fn lacking(broker: &Broker, settings: &Settings) -> Option<Lacking> {
    let services = settings.effect.analysed().map(|effect| (effect, broker.service(&effect.queue())));
    services
        .into_iter()
        .find(|(_, service)| *service != Service::Served)
        .map(|(effect, service)| Lacking { effect: effect.clone(), service })
}

/// Returns whether frames of the effect in force reach a worker now.
pub(super) fn of(broker: &Broker, settings: &Settings) -> Service {
    lacking(broker, settings).map_or(Service::Served, |lacking| lacking.service)
}

/// Returns why a frame reaches no worker; `None` when it does.
pub(super) fn drop_reason(service: Service) -> Option<DropReason> {
    match service {
        Service::Served => None,
        Service::NoWorker => Some(DropReason::NoWorker),
        Service::Disconnected => Some(DropReason::Undelivered),
    }
}

/// Returns the label for browsers.
pub(super) fn label(service: Service) -> &'static str {
    match service {
        Service::Served => "served",
        Service::NoWorker => "no_worker",
        Service::Disconnected => "broker_down",
    }
}

/// Returns the problem to tell the browser of. `is_offered`: the effect can still be chosen.
/// `is_shared`: workers are on other machines.
pub(super) fn problem(lacking: &Lacking, is_offered: bool, is_shared: bool) -> Problem {
    let effect = lacking.effect.as_ref();
    describe(&effect.name(), lacking.service, &remedy(effect, is_offered, is_shared))
}

/// Returns what an operator does so that a worker serves the effect.
fn remedy(effect: &dyn Effect, is_offered: bool, shared: bool) -> String {
    match (effect.folder(), shared) {
        (Some(_), _) if !is_offered => "the effect was taken away or replaced, so choose another".into(),
        (Some(_), true) => "put its folder, the same as the gateway's, into effects.d of a worker and send that SIGHUP".into(),
        _ => start_a_worker(effect.name().as_str(), shared),
    }
}

/// Returns the problem that the browser is told of.
fn describe(effect: &EffectName, service: Service, remedy: &str) -> Problem {
    if service == Service::Disconnected {
        let detail = format!(
            "the way to the workers of {effect} is down; the picture is held until it is back: see that Redis runs and is reached, the \
             gateway's /readyz says what is wrong"
        );
        return Problem::new(ProblemKind::BrokerDown, detail);
    }
    Problem::new(ProblemKind::NoWorker, format!("no worker serves {effect} now; the picture is held until one comes: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_the_effect_and_the_remedy() {
        let effect = EffectName::new("background_blur");
        let blur = ooblex_effects::find(&effect).unwrap();
        let none = describe(&effect, Service::NoWorker, &remedy(blur.as_ref(), true, true));
        assert_eq!((none.r#type.as_str(), none.status), ("urn:ooblex:problem:no-worker", 503));
        assert!(none.detail.contains("no worker serves background_blur now") && none.detail.contains("ooblex worker --broker"));
        assert!(describe(&effect, Service::NoWorker, &remedy(blur.as_ref(), true, false)).detail.contains("worker.effects"));
        let down = describe(&effect, Service::Disconnected, "");
        assert_eq!(down.r#type, "urn:ooblex:problem:broker-down");
        assert!(down.detail.contains("background_blur") && down.detail.contains("Redis"));
    }

    #[test]
    fn a_change_of_service_is_told_once_and_not_before_the_channel_is_open() {
        let (mut state, blur, sepia) = (NotifiedState::default(), EffectName::new("background_blur"), EffectName::new("sepia"));
        assert!(!state.on_service(&blur, Service::NoWorker));
        assert_eq!(state.on_open(), None);
        assert!(!state.on_service(&blur, Service::Served), "the browser takes it to be served");
        assert!(state.on_service(&blur, Service::NoWorker));
        assert!(!state.on_service(&blur, Service::NoWorker));
        assert!(state.on_service(&blur, Service::Disconnected));
        assert!(state.on_service(&sepia, Service::Disconnected), "another effect");
        assert!(state.on_service(&sepia, Service::Served));
        assert!(!state.on_service(&sepia, Service::Served));
    }

    #[test]
    fn the_browser_is_told_of_changes_that_others_make_as_soon_as_its_channel_is_open() {
        let mut state = NotifiedState::default();
        assert!(!state.on_settings(ChangedBy::Api));
        assert!(!state.on_settings(ChangedBy::Reload));
        assert_eq!(state.on_open(), Some(ChangedBy::Reload), "the last one");
        assert_eq!(state.on_open(), None);
        assert!(state.on_settings(ChangedBy::Api));
        assert!(!state.on_settings(ChangedBy::Channel), "it has made this one itself");
    }
}
