//! The HTTP hook: a server of the operator's says whether a caller may do something. What it is asked is what MediaMTX asks.
//!
//! `2xx` allows, `401` and `403` refuse; with anything else, and with silence, nobody gets in. Its answer may narrow what is allowed.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::warn;
use ureq::Agent;

use super::grant::{Grant, Restrictions, Rooms};
use super::outgoing;
use crate::config::{self, HttpUrl};
use crate::labels::Reason;

/// Questions at a time; others wait for their turn.
const QUESTIONS: usize = 16;
/// Largest answer that is read, bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// Asks the hook.
pub(super) struct Hook {
    url: HttpUrl,
    agent: Agent,
    turns: Arc<Semaphore>,
    timeout: Duration,
}

/// The question that the hook gets.
#[derive(Clone, Serialize)]
pub(super) struct Question {
    pub(super) ip: IpAddr,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) token: String,
    pub(super) action: Action,
    /// The room; empty where there is none.
    pub(super) path: String,
    pub(super) protocol: &'static str,
    /// The session, where there is one already.
    pub(super) id: Option<String>,
    pub(super) query: String,
}

/// The action that the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Begin a session that sends a camera.
    Publish,
    /// An action of operators.
    Api,
    /// Read the metrics.
    Metrics,
}

/// The JSON that an answer may have.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(flatten)]
    restrictions: Restrictions,
    /// Seconds after which the permission ends.
    expires_in_s: Option<u32>,
}

impl Hook {
    pub(super) fn new(hook: &config::Hook) -> Option<Self> {
        let timeout = Duration::from_millis(hook.timeout_ms);
        let url = hook.url.clone()?;
        Some(Self { url, agent: outgoing::agent(timeout), turns: Arc::new(Semaphore::new(QUESTIONS)), timeout })
    }

    /// Asks whether that is allowed. Gives what is granted.
    ///
    /// # Errors
    /// When the hook refuses, or gives no answer that is understood.
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
                    warn!(url = %self.url, status, "the hook's answer is not understood, so nobody is let in");
                }
            }),
            Ok(Err(reason)) => {
                warn!(url = %self.url, reason, "the hook cannot be asked, so nobody is let in");
                Err(Reason::Unavailable)
            }
            Err(_) => Err(Reason::Unavailable),
        }
    }
}

/// The status and the body of the answer.
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
    // A text such as "OK" says no more than the status. An object that is not understood could be a restriction that is misspelt.
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let answer: Answer = if is_object { serde_json::from_slice(body).map_err(|_| Reason::Unavailable)? } else { Answer::default() };
    let mut grant = Grant { restrictions: answer.restrictions, ..Grant::default() };
    match action {
        Action::Publish => grant.publish = Rooms::all(),
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
                grant.may_publish() && !grant.admin && grant.restrictions == Restrictions::default() && grant.expires.is_none(),
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
