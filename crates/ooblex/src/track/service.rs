//! What a track says of the workers of its effect: that none serves it, that the way to them is down, that they are back.
//!
//! Said at once and once, to the browser, over the data channel; the reports of [`super::report`] repeat the state. The picture
//! is held meanwhile, which is `driver`'s part.

use std::sync::Arc;

use ooblex_broker::Service;
use ooblex_effects::Effect;
use ooblex_pipeline::{DropReason, EffectName};
use serde_json::Value;

use super::driver::Driver;
use crate::control;
use crate::events::Kind;
use crate::problem::{Problem, ProblemKind, start_a_worker};
use crate::settings::ChangedBy;

impl Driver {
    /// The browser can be talked to: it is told what it could not be told before.
    pub(super) fn on_control_open(&mut self) {
        self.notified.open = true;
        if let Some(by) = self.notified.changed.take() {
            self.say_settings(by);
        }
        self.review_service();
    }

    /// Tells whoever reads the session's events which settings are in force; and the browser, unless it changed them itself.
    pub(super) fn tell_settings(&mut self, by: ChangedBy) {
        self.events.tell(Kind::Settings, None, &control::settings(&self.settings, self.track.generation(), by));
        match by {
            ChangedBy::Channel => {}
            _ if self.notified.open => self.say_settings(by),
            _ => self.notified.changed = Some(by),
        }
    }

    fn say_settings(&self, by: ChangedBy) {
        self.say(control::settings(&self.settings, self.track.generation(), by));
    }

    /// Why frames of the effect in force would reach no worker now; `None` when they would.
    pub(super) fn unserved(&self) -> Option<DropReason> {
        match self.service() {
            Service::Served => None,
            Service::NoWorker => Some(DropReason::NoWorker),
            Service::Disconnected => Some(DropReason::Undelivered),
        }
    }

    /// Whether frames of the effect in force reach a worker now.
    pub(super) fn service(&self) -> Service {
        self.lacking().map_or(Service::Served, |(_, service)| service)
    }

    /// The first effect of the chain in force whose frames reach no worker now, and why.
    fn lacking(&self) -> Option<(Arc<dyn Effect>, Service)> {
        let services = self.settings.effect.analysed().map(|effect| (effect, self.context.broker.service(&effect.queue())));
        services.into_iter().find(|(_, service)| *service != Service::Served).map(|(effect, service)| (effect.clone(), service))
    }

    /// Tells the browser when something else is true of the effect in force than it knows.
    pub(super) fn review_service(&mut self) {
        if !self.notified.open {
            return;
        }
        let (effect, lacking) = (self.settings.effect.name(), self.lacking());
        let service = lacking.as_ref().map_or(Service::Served, |(_, service)| *service);
        let problem = match service {
            Service::Served if self.notified.unserved.take().is_none() => return,
            Service::Served => None,
            unserved => {
                let now = Some((effect.clone(), unserved));
                if self.notified.unserved == now {
                    return;
                }
                self.notified.unserved = now;
                lacking.map(|(part, _)| {
                    let is_offered = self.context.catalogue.offers(part.as_ref());
                    let mend = mend(part.as_ref(), is_offered, self.context.config.broker.is_shared());
                    problem(&part.name(), unserved, &mend)
                })
            }
        };
        if let Some(problem) = problem {
            self.say(control::error(&Value::Null, &problem));
        }
        self.tell(Kind::Service, None, control::service(&effect, label(service)));
    }
}

/// The word for browsers.
pub(super) fn label(service: Service) -> &'static str {
    match service {
        Service::Served => "served",
        Service::NoWorker => "no_worker",
        Service::Disconnected => "broker_down",
    }
}

/// What would mend that no worker serves an effect.
fn mend(effect: &dyn Effect, is_offered: bool, shared: bool) -> String {
    match (effect.folder(), shared) {
        (Some(_), _) if !is_offered => "the effect was taken away or replaced, so choose another".into(),
        (Some(_), true) => "put its folder, the same as the gateway's, into effects.d of a worker and send that SIGHUP".into(),
        _ => start_a_worker(effect.name().as_str(), shared),
    }
}

/// What a viewer is told.
fn problem(effect: &EffectName, service: Service, mend: &str) -> Problem {
    if service == Service::Disconnected {
        let detail = format!(
            "the way to the workers of {effect} is down; the picture is held until it is back: see that Redis runs and is reached, the \
             gateway's /readyz says what is wrong"
        );
        return Problem::new(ProblemKind::BrokerDown, detail);
    }
    Problem::new(ProblemKind::NoWorker, format!("no worker serves {effect} now; the picture is held until one comes: {mend}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_the_effect_and_the_mend() {
        let effect = EffectName::new("background_blur");
        let blur = ooblex_effects::find(&effect).unwrap();
        let none = problem(&effect, Service::NoWorker, &mend(blur.as_ref(), true, true));
        assert_eq!((none.r#type.as_str(), none.status), ("urn:ooblex:problem:no-worker", 503));
        assert!(none.detail.contains("no worker serves background_blur now") && none.detail.contains("ooblex worker --broker"));
        assert!(problem(&effect, Service::NoWorker, &mend(blur.as_ref(), true, false)).detail.contains("worker.effects"));
        let down = problem(&effect, Service::Disconnected, "");
        assert_eq!(down.r#type, "urn:ooblex:problem:broker-down");
        assert!(down.detail.contains("background_blur") && down.detail.contains("Redis"));
    }
}
