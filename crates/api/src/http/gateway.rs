//! State that all HTTP handlers share.

use std::sync::Arc;

use serde_json::Value;

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::custom_effects::{CustomEffects, Reloaded};
use crate::jpeg::JpegEncoder;
use crate::peers::Peers;
use crate::sessions::Sessions;
use crate::thumbnails::Thumbnails;
use crate::turn::Turn;
use ooblex_gateway::track::Context;
use ooblex_gateway::watchdog::Heartbeat;
use ooblex_recording::Recordings;
use ooblex_rtc::negotiate::Negotiator;
use ooblex_rtc::transport::TransportHandle;
use ooblex_worker::about::About;

/// State that all HTTP handlers share.
pub struct Gateway {
    /// State that all tracks share.
    pub context: Arc<Context>,
    /// Handle to the media thread.
    pub transport: TransportHandle,
    /// Running sessions.
    pub sessions: Arc<Sessions>,
    /// Recordings of rooms.
    pub recordings: Recordings,
    /// Admission control for new sessions.
    pub admission: Arc<Admission>,
    /// Answers SDP offers.
    pub negotiator: Negotiator,
    /// Pulls from and pushes to other servers.
    pub peers: Peers,
    /// Heartbeat of the media thread.
    pub heartbeat: Arc<Heartbeat>,
    /// Authenticates callers.
    pub auth: Authenticator,
    /// TURN relays for browsers that cannot be reached by UDP.
    pub turn: Option<Turn>,
    /// Backend and device that run the models of this process.
    pub about: About,
    /// Images that clients request.
    pub images: Images,
    /// Custom effects of the operator.
    pub custom_effects: CustomEffects,
}

/// Makes the images that clients request.
pub struct Images {
    /// Thumbnails of the effects.
    pub thumbnails: Thumbnails,
    /// Pictures of rooms.
    pub jpeg: JpegEncoder,
}

impl Gateway {
    /// Reloads the custom effects and moves running sessions to the replaced versions. Blocks while
    /// new models are tried.
    pub fn reload_custom_effects(&self) -> Reloaded {
        let Context { catalogue, metrics, config, .. } = self.context.as_ref();
        self.custom_effects.reload(|| {
            metrics.know(catalogue.labels(), config.limits.sessions);
            metrics.know_analysed(&catalogue.analysed());
            self.images.thumbnails.keep(&catalogue.effects());
            self.sessions.renew(|settings, restrictions| {
                let renewed = catalogue.renewed(settings)?;
                restrictions.permit(catalogue, renewed, &Value::Null).ok()
            });
        })
    }
}
