//! Pulls and pushes: sessions that the gateway begins as a client of WHEP or WHIP with another server.
//!
//! A [`Link`] is one of them, with its state. [`Peers`] lists them, makes the offers, and calls the
//! other servers (`exchange`). The life of a link, from attempt to attempt (`backoff`), is in
//! [`crate::http`], where sessions begin.

mod exchange;
mod link;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, parse_pem};

pub(crate) use self::exchange::{Accepted, Exchange, Failure, RemoteSession, Retry};
pub use self::link::Link;
pub(crate) use self::link::{Role, Target};
use crate::rooms::RoomName;
use ooblex_config::{Config, ConfigError, MAX_LINKS, PeerUrl, Secret};
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_rtc::negotiate::dial::Dialler;

/// The pulls and pushes of the gateway.
pub struct Peers {
    pub(crate) dialler: Dialler,
    pub(crate) exchange: Exchange,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    last_id: AtomicU64,
}

impl Peers {
    /// Creates the list with the links of the configuration. They begin with
    /// [`crate::http::start_links`].
    ///
    /// # Errors
    /// When a file or a variable cannot be read, or a room has an impossible name.
    pub fn new(config: &Config, dialler: Dialler) -> Result<Self, ConfigError> {
        let more = config.rooms.peers_ca_file.as_deref().map_or(Ok(Vec::new()), authorities)?;
        let exchange = Exchange::new(config.rooms.clone(), config.limits.sdp_kib, more);
        let peers = Self { dialler, exchange, links: Mutex::default(), last_id: AtomicU64::default() };
        let add = |list: &str, role, room: &str, target| {
            let added = RoomName::parse(room).and_then(|room| peers.add(role, room, target));
            added.map(|_| ()).map_err(|problem| ConfigError::Senseless(format!("{list}: {}", problem.detail)))
        };
        for pull in &config.pulls {
            let target = Target { url: pull.whep.clone(), token: pull.token()? };
            add("pulls", Role::Pull { effect: pull.effect.clone(), params: pull.params.clone() }, &pull.room, target)?;
        }
        for push in &config.pushes {
            let target = Target { url: push.whip.clone(), token: push.token()? };
            add("pushes", Role::Push, &push.room, target)?;
        }
        Ok(peers)
    }

    /// Adds a link, which does not begin by that.
    ///
    /// # Errors
    /// When the URL may not be called, the token cannot be sent, another pull publishes to the room, or
    /// there are too many.
    pub(crate) fn add(&self, role: Role, room: RoomName, target: Target) -> Result<Arc<Link>, Problem> {
        self.exchange.check(&target.url)?;
        target.token.as_ref().map_or(Ok(()), check_token)?;
        let mut links = self.links.lock();
        if links.len() >= MAX_LINKS {
            let detail = format!("there are {MAX_LINKS} pulls and pushes, as many as there may be: end one of them");
            return Err(Problem::new(ProblemKind::TooManySessions, detail));
        }
        if role.is_pull() && links.values().any(|link| link.role.is_pull() && link.room == room) {
            let detail = format!("another pull publishes to the room '{room}': end it, or choose another room");
            return Err(Problem::new(ProblemKind::RoomTaken, detail));
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Arc::new(Link::new(id, role, room, target));
        links.insert(id, link.clone());
        Ok(link)
    }

    /// Ends a link. Returns false if there is none with this id.
    pub(crate) fn end(&self, is_pull: bool, id: u64) -> bool {
        let mut links = self.links.lock();
        let is_there = links.get(&id).is_some_and(|link| link.role.is_pull() == is_pull);
        if is_there {
            links.remove(&id).inspect(|link| link.stop());
        }
        is_there
    }

    /// Returns the links, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// Returns the pulls, or the pushes, with their state as JSON.
    pub(crate) fn describe(&self, is_pull: bool) -> Value {
        self.all().iter().filter(|link| link.role.is_pull() == is_pull).map(|link| link.describe()).collect()
    }

    /// Ends all links, and waits until the other servers know it.
    pub async fn stop(&self) {
        let links = std::mem::take(&mut *self.links.lock());
        links.values().for_each(|link| link.stop());
        for link in links.values() {
            link.ended().await;
        }
    }
}

/// Reads certificate authorities from a PEM file.
fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, ConfigError> {
    let refused =
        |reason| ConfigError::Senseless(format!("rooms.peers_ca_file {} {reason}: name a PEM file of certificates", file.display()));
    let pem = std::fs::read(file).map_err(|error| refused(format!("cannot be read ({error})")))?;
    let mut authorities = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| refused(format!("is no PEM file ({error})")))? {
            authorities.push(certificate);
        }
    }
    if authorities.is_empty() { Err(refused("has no certificate".into())) } else { Ok(authorities) }
}

/// Checks that a header can carry a token.
fn check_token(token: &Secret) -> Result<(), Problem> {
    if token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::BadRequest, "the token must have letters, digits and signs of ASCII only, without spaces"))
}

/// Returns the URL of a request.
///
/// # Errors
/// When it is no URL of a server.
pub(crate) fn checked_url(field: &str, url: &str) -> Result<PeerUrl, Problem> {
    url.trim().parse().map_err(|error| Problem::new(ProblemKind::BadRequest, format!("'{field}' cannot be used: {error}")))
}
