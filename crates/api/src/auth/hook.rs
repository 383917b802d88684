//! Authentication hook: an HTTP server of the operator decides about each caller. The requests have
//! the format of MediaMTX's `authHTTPAddress`.
//!
//! A `2xx` status allows, `401` and `403` refuse. Any other status, or no answer, refuses too. The
//! body of the answer may restrict what is allowed.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::warn;
use ureq::Agent;

use super::grant::{Grant, Rooms};
use crate::outgoing;
use ooblex_config::{self as config, HttpUrl};
use ooblex_gateway::labels::Reason;
use ooblex_gateway::restrictions::Restrictions;

/// Largest number of concurrent questions; others wait.
const QUESTIONS: usize = 16;
/// Largest accepted answer in bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// Client of the authentication hook.
pub(super) struct Hook {
    url: HttpUrl,
    agent: Agent,
    turns: Arc<Semaphore>,
    timeout: Duration,
}

/// JSON body of the request to the hook.
#[derive(Clone, Serialize)]
pub(super) struct Question {
    pub(super) ip: IpAddr,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) token: String,
    pub(super) action: Action,
    /// Room; empty if the action concerns no room.
    pub(super) path: String,
    pub(super) protocol: &'static str,
    /// Session id; `None` before the session exists.
    pub(super) id: Option<String>,
    pub(super) query: String,
}

/// The action that the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Begins a session that publishes a camera.
    Publish,
    /// Begins a session that watches a room.
    Read,
    /// Uses the operator API.
    Api,
    /// Reads the metrics.
    Metrics,
}

/// JSON body of the hook's answer.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(flatten)]
    restrictions: Restrictions,
    /// Lifetime of the grant in seconds.
    expires_in_s: Option<u32>,
}

impl Hook {
    pub(super) fn new(hook: &config::Hook) -> Option<Self> {
        let timeout = Duration::from_millis(hook.timeout_ms);
        let url = hook.url.clone()?;
        Some(Self { url, agent: outgoing::agent(timeout), turns: Arc::new(Semaphore::new(QUESTIONS)), timeout })
    }

    /// Asks the hook about a caller and returns the grant.
    ///
    /// # Errors
    /// When the hook refuses, does not answer, or answers with JSON that is not understood.
    pub(super) async fn ask(&self, question: Question) -> Result<Grant, Reason> {
        let turn = tokio::time::timeout(self.timeout, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            warn!(url = %self.url, "the hook is too slow: {QUESTIONS} questions wait for its answers");
            return Err(Reason::Unavailable);
        };
        let (agent, url, action) = (self.agent.clone(), self.url.clone(), question.action);
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            ask(&agent, &url, &question)
        });
        match asked.await {
            Ok(Ok((status, body))) => judge(status, &body, action, SystemTime::now()).inspect_err(|reason| {
                if *reason == Reason::Unavailable {
                    warn!(url = %self.url, status, "the hook's answer is not understood, so the caller is refused");
                }
            }),
            Ok(Err(reason)) => {
                warn!(url = %self.url, reason, "the hook cannot be reached, so the caller is refused");
                Err(Reason::Unavailable)
            }
            Err(_) => Err(Reason::Unavailable),
        }
    }
}

/// Sends the question and returns the status and body of the answer.
fn ask(agent: &Agent, url: &HttpUrl, question: &Question) -> Result<(u16, Vec<u8>), String> {
    let response = agent.post(url.as_str()).send_json(question).map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(MAX_BYTES + 1);
    reader.read_to_end(&mut body).map_err(|error| error.to_string())?;
    if body.len() as u64 > MAX_BYTES { Err(format!("its answer is larger than {MAX_BYTES} bytes")) } else { Ok((status, body)) }
}

fn judge(status: u16, body: &[u8], action: Action, now: SystemTime) -> Result<Grant, Reason> {
    match status {
        200..=299 => {}
        401 | 403 => return Err(Reason::HookRefused),
        _ => return Err(Reason::Unavailable),
    }
    // A text such as "OK" adds nothing to the status. A JSON object that is not understood could be
    // a misspelt restriction, so it is refused.
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let answer: Answer = if is_object { serde_json::from_slice(body).map_err(|_| Reason::Unavailable)? } else { Answer::default() };
    let mut grant = Grant { restrictions: answer.restrictions, ..Grant::default() };
    match action {
        Action::Publish => grant.publish = Rooms::all(),
        Action::Read => grant.view = Rooms::all(),
        Action::Api | Action::Metrics => grant.admin = true,
    }
    grant.expires = answer.expires_in_s.map(|seconds| now + Duration::from_secs(seconds.into()));
    Ok(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_lets_in_and_the_answer_can_narrow_it() {
        let now = SystemTime::now();
        let judge = |status, body: &str, action| judge(status, body.as_bytes(), action, now);
        for body in ["", "OK", "[]", "{}", r#"{"user": "ann"}"#] {
            let grant = judge(204, body, Action::Publish).unwrap();
            assert!(
                grant.may_publish(None) && !grant.admin && grant.restrictions == Restrictions::default() && grant.expires.is_none(),
                "{body}"
            );
        }
        assert!(judge(200, "", Action::Api).unwrap().admin);
        let narrowed = judge(200, r#" {"effects": ["sepia"], "max_kilopixels": 300, "expires_in_s": 60}"#, Action::Publish).unwrap();
        assert_eq!(narrowed.restrictions.effects, Some(vec!["sepia".into()]));
        assert_eq!(narrowed.expires, Some(now + Duration::from_secs(60)));
        for (status, body, reason) in [
            (401, "", Reason::HookRefused),
            (403, "", Reason::HookRefused),
            (301, "", Reason::Unavailable),
            (404, "", Reason::Unavailable),
            (500, "", Reason::Unavailable),
            (200, r#"{"effects": "sepia"}"#, Reason::Unavailable),
            (200, r#"{"effects": null}"#, Reason::Unavailable),
            (200, r#"{"expires_in_s": -1}"#, Reason::Unavailable),
            (200, "{", Reason::Unavailable),
        ] {
            assert_eq!(judge(status, body, Action::Publish).unwrap_err(), reason, "{status} {body}");
        }
    }
}
