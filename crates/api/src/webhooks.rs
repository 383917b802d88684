//! Webhooks: servers of the operator are told when rooms and sessions begin and end. The requests
//! have the format of [Standard Webhooks](https://www.standardwebhooks.com): headers `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`.
//!
//! Whoever tells something never waits: messages go to a queue of limited length for each receiver,
//! and threads send them. What waits is lost when the process ends.

mod message;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::Value;
use tracing::{debug, info, warn};
use ureq::Agent;
use ureq::http::header;

use self::message::{Key, Message};
use self::queue::{Due, Outcome, Queue};
use crate::outgoing;
use ooblex_config::{ConfigError, HttpUrl, Webhook};
use ooblex_gateway::metrics::{Metrics, WebhookMetrics};

/// Largest number of messages that wait for a receiver.
const CAPACITY: usize = 1000;
/// Number of concurrent requests to a receiver.
const SENDERS: usize = 4;
/// Interval at which the queues are looked at while the gateway stops.
const FLUSH_LOOK: Duration = Duration::from_millis(10);

/// The receivers of webhooks. Clones share them.
#[derive(Clone, Default)]
pub struct Webhooks(Vec<Arc<Receiver>>);

/// Something that receivers are told.
pub(crate) struct Event<'a> {
    /// The type of the event, such as `room.started`.
    pub(crate) kind: &'static str,
    /// The room or session that it is about. Events of one subject arrive in their order.
    pub(crate) subject: &'a str,
    pub(crate) data: Value,
}

/// A receiver with its key.
struct Endpoint {
    url: HttpUrl,
    key: Key,
    agent: Agent,
}

/// A receiver, with the messages that wait for it.
struct Receiver {
    endpoint: Endpoint,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queue: Queue,
    /// The last attempt has failed.
    is_down: bool,
    /// The messages that the metrics count.
    counted: usize,
}

impl Endpoint {
    fn new(webhook: &Webhook) -> Result<Self, ConfigError> {
        let agent = outgoing::agent(Duration::from_millis(webhook.timeout_ms));
        Ok(Self { url: webhook.url.clone(), key: Key::new(&webhook.secret()?)?, agent })
    }

    /// Sends a message. Any status but `2xx` is a failure.
    fn send(&self, message: &Message) -> Result<(), Failure> {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let body = message.body();
        let request = self.agent.post(self.url.as_str()).header(header::CONTENT_TYPE, "application/json");
        let request = request.header("webhook-id", &message.id).header("webhook-timestamp", seconds.to_string());
        let sent = request.header("webhook-signature", self.key.sign(&message.id, seconds, &body)).send(body.as_str());
        let response = sent.map_err(|error| Failure { reason: error.to_string(), retry_after: Duration::ZERO })?;
        if response.status().is_success() {
            return Ok(());
        }
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Failure { reason: format!("it answers {}", response.status()), retry_after: Duration::from_secs(wait.unwrap_or(0)) })
    }
}

/// The reason why a message was not accepted.
struct Failure {
    reason: String,
    /// The time that the receiver asks for.
    retry_after: Duration,
}

/// Checks the configured webhooks. Returns a description.
///
/// # Errors
/// When a secret is missing or has the wrong format.
pub fn check(webhooks: &[Webhook]) -> Result<String, ConfigError> {
    webhooks.iter().try_for_each(|webhook| Endpoint::new(webhook).map(drop))?;
    let urls: Vec<_> = webhooks.iter().map(|webhook| webhook.url.to_string()).collect();
    Ok(if urls.is_empty() { "none".into() } else { urls.join(", ") })
}

impl Webhooks {
    /// Starts the threads of the configured receivers.
    ///
    /// # Errors
    /// When a secret is missing or has the wrong format, or the system gives no thread.
    pub fn start(webhooks: &[Webhook], metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let start = |webhook: &Webhook| -> anyhow::Result<Arc<Receiver>> {
            let receiver = Arc::new(Receiver {
                endpoint: Endpoint::new(webhook)?,
                metrics: metrics.clone(),
                state: Mutex::new(State { queue: Queue::new(CAPACITY), is_down: false, counted: 0 }),
                changed: Condvar::new(),
            });
            for _ in 0..SENDERS {
                let receiver = receiver.clone();
                std::thread::Builder::new().name("webhook".into()).spawn(move || receiver.run())?;
            }
            Ok(receiver)
        };
        webhooks.iter().map(start).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether nobody is told anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all receivers. It never waits for them.
    pub(crate) fn tell(&self, Event { kind, subject, data }: Event<'_>) {
        if self.is_empty() {
            return;
        }
        let (message, now) = (Arc::new(Message::new(kind, data)), Instant::now());
        for receiver in &self.0 {
            let mut state = receiver.state.lock();
            let is_whole = state.queue.push(now, subject, message.clone());
            receiver.count(&mut state);
            drop(state);
            if !is_whole {
                receiver.figures().on_dropped(WebhookMetrics::FULL, 1);
            }
            receiver.changed.notify_one();
        }
    }

    /// Waits until all messages are sent, for `within` at most.
    pub async fn flush(&self, within: Duration) {
        let sent = async {
            while self.0.iter().any(|receiver| receiver.state.lock().queue.len() > 0) {
                tokio::time::sleep(FLUSH_LOOK).await;
            }
        };
        _ = tokio::time::timeout(within, sent).await;
    }
}

impl Receiver {
    /// Sends messages for ever.
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let expired = state.queue.expire(now);
            if expired > 0 {
                self.figures().on_dropped(WebhookMetrics::EXPIRED, expired);
                self.count(&mut state);
            }
            match (state.queue.take(now), state.queue.next_wakeup()) {
                (Some(due), _) => self.send(&mut state, &due),
                (None, Some(at)) => _ = self.changed.wait_until(&mut state, at),
                (None, None) => self.changed.wait(&mut state),
            }
        }
    }

    fn send(&self, state: &mut MutexGuard<'_, State>, due: &Due) {
        let attempt = || catch_unwind(AssertUnwindSafe(|| self.endpoint.send(&due.message)));
        let sent = MutexGuard::unlocked(state, attempt)
            .unwrap_or_else(|_| Err(Failure { reason: "the request panicked".into(), retry_after: Duration::ZERO }));
        let url = &self.endpoint.url;
        let was_down = std::mem::replace(&mut state.is_down, sent.is_err());
        let outcome = match sent {
            Ok(()) => {
                self.figures().delivered.inc();
                if was_down {
                    info!(%url, "webhooks are delivered again");
                }
                Outcome::Delivered
            }
            Err(Failure { reason, retry_after }) => {
                self.figures().failed.inc();
                if was_down {
                    debug!(%url, reason, "a webhook was not delivered");
                } else {
                    warn!(%url, reason, "a webhook was not delivered, and is sent again");
                }
                Outcome::Failed(retry_after)
            }
        };
        state.queue.on_sent(Instant::now(), &due.subject, outcome, rand::random());
        self.count(state);
        // Another thread may wait for a later time than the next message of this subject.
        self.changed.notify_one();
    }

    fn figures(&self) -> &WebhookMetrics {
        &self.metrics.feeds.webhooks
    }

    fn count(&self, state: &mut State) {
        let before = std::mem::replace(&mut state.counted, state.queue.len());
        self.figures().waiting.inc_by(state.counted as i64 - before as i64);
    }
}
