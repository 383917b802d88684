//! The state that all handlers share.

use std::sync::Arc;

use serde_json::Value;

use crate::about::About;
use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::own::{Reloaded, Shelf};
use crate::rtc::negotiate::Negotiator;
use crate::rtc::transport::TransportHandle;
use crate::sessions::Sessions;
use crate::thumbnails::Thumbnails;
use crate::track::Context;
use crate::turn::Turn;
use crate::watchdog::Heartbeat;

/// What the handlers share.
pub struct Gateway {
    /// What tracks share.
    pub context: Arc<Context>,
    /// The way to the media thread.
    pub transport: TransportHandle,
    /// The running sessions.
    pub sessions: Arc<Sessions>,
    /// Who may begin a session.
    pub admission: Arc<Admission>,
    /// What answers offers.
    pub negotiator: Negotiator,
    /// Whether the media thread works.
    pub heartbeat: Arc<Heartbeat>,
    /// Who may do what.
    pub auth: Authenticator,
    /// Relays for browsers that UDP does not reach.
    pub turn: Option<Turn>,
    /// What runs the models of this process.
    pub about: About,
    /// What effects look like.
    pub thumbnails: Thumbnails,
    /// The effects of one's own.
    pub shelf: Shelf,
}

impl Gateway {
    /// Reads the effects of one's own again, and lets sessions have those that were replaced. Blocks while new models are tried.
    pub fn reload_own(&self) -> Reloaded {
        let Context { catalogue, metrics, config, .. } = self.context.as_ref();
        self.shelf.reload(|| {
            metrics.know(catalogue.labels(), config.limits.sessions);
            metrics.know_analysed(&catalogue.analysed());
            self.thumbnails.keep(&catalogue.effects());
            self.sessions.renew(|settings, restrictions| {
                let renewed = catalogue.renewed(settings)?;
                restrictions.permit(catalogue, renewed, &Value::Null).ok()
            });
        })
    }
}
