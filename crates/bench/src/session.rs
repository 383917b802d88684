//! One session of `ooblex bench`: it connects, sends the clip at the frame rate of a camera, and
//! records what comes back.
//!
//! A session is a task on a runtime shared with other sessions, so it waits only for its socket and
//! its timers. Its measurements are in the `tally` of its [`Viewer`], which other modules read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{EncodedFrame, MediaTime};
use serde_json::Value;

use super::connection::Connection;
use super::decoding::Work;
use super::session_stats::Arrival;
use super::viewer::{Leave, Stage, State, Times, Viewer};
use ooblex_client::endpoint::Purpose;
use ooblex_client::{ClientError, ClientEvent};

/// Minimum time between two keyframe requests.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Time after which a session without a camera looks whether it must end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Delay of the simulated camera beyond which it skips frames.
const BEHIND: Duration = Duration::from_secs(1);

/// Runs a session from the offer to its end.
pub(super) async fn live(stage: Arc<Stage>, viewer: Arc<Viewer>) {
    let began = Instant::now();
    let connected = match Connection::set_up(&stage, &viewer).await {
        Ok(connection) => connection.connected(&viewer).await,
        Err(error) => Err(error),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => return viewer.set_state(State::Failed(explain(&error, &stage.url))),
    };
    let after = began.elapsed();
    viewer.tally().connected(Instant::now());
    viewer.set_state(State::Up { after });
    let ended = Playing::new(&stage, &viewer, connection).play().await;
    stage.decoders.forget(viewer.index);
    viewer.set_state(match ended {
        Ok(()) => State::Left { after },
        Err(error) => State::Lost { after, reason: error.to_string() },
    });
}

/// Reason why a session ended without being told to.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The gateway closed the session, or was silent until the timeout.
    #[error("the gateway ended it, or was silent for too long")]
    Ended,
    /// The connection failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A connected session.
struct Playing<'a> {
    stage: &'a Stage,
    viewer: &'a Arc<Viewer>,
    connection: Connection,
    /// Time of the camera's first frame.
    began: Instant,
    /// Number of frame periods since the camera began.
    count: u64,
    /// RTP timestamp of the first frame.
    first_ticks: u32,
    /// Index of the next frame of the clip.
    next: u16,
    restart: bool,
    last_asked: Option<Instant>,
    /// True if the decoder has missed a frame.
    missed: bool,
    times: Times,
}

impl<'a> Playing<'a> {
    fn new(stage: &'a Stage, viewer: &'a Arc<Viewer>, connection: Connection) -> Self {
        // The cameras have different phases, and their RTP timestamps start at random values, so
        // that no timestamp can match by chance.
        let phase = 1.0 / f64::from(stage.clip.fps) * ((viewer.index as f64 * 0.618_034) % 1.0);
        Self {
            stage,
            viewer,
            connection,
            began: Instant::now() + Duration::from_secs_f64(phase),
            count: 0,
            first_ticks: rand::random::<u32>() >> 1,
            next: 0,
            restart: false,
            last_asked: None,
            missed: false,
            times: Times::default(),
        }
    }

    async fn play(mut self) -> Result<(), Broken> {
        loop {
            while let Some(event) = self.connection.endpoint.next_event() {
                self.on_event(event)?;
            }
            if self.viewer.takes_keyframe_wish() {
                self.ask_for_keyframe(Instant::now());
            }
            match self.viewer.leaves() {
                Some(Leave::Silence) => return Ok(()),
                Some(Leave::Goodbye) => return Ok(self.connection.goodbye(self.viewer).await?),
                None => {}
            }
            if matches!(self.viewer.purpose, Purpose::Watch(_)) {
                self.follow_times();
                self.connection.step(self.viewer, Instant::now() + LOOK_EVERY).await?;
                continue;
            }
            let due = self.due();
            if Instant::now() >= due {
                self.send_frame(due)?;
            } else {
                self.connection.step(self.viewer, due).await?;
            }
        }
    }

    /// Returns the time of the next frame. After a delay of more than [`BEHIND`], the missed frames
    /// are skipped.
    fn due(&mut self) -> Instant {
        let fps = u64::from(self.stage.clip.fps);
        let at = |count: u64| self.began + Duration::from_micros(count * 1_000_000 / fps);
        let late = Instant::now().saturating_duration_since(at(self.count));
        if late > BEHIND {
            self.count += (late.as_secs_f64() * fps as f64) as u64;
        }
        at(self.count)
    }

    fn send_frame(&mut self, due: Instant) -> Result<(), Broken> {
        let clip = &self.stage.clip;
        self.follow_times();
        if std::mem::take(&mut self.restart) {
            // The first frame is the clip's only keyframe.
            self.next = 0;
        }
        let index = self.next;
        let ticks = self.first_ticks.wrapping_add((self.count * 90_000 / u64::from(clip.fps)) as u32);
        let frame = EncodedFrame { capture: MediaTime(ticks.into()), ..clip.frames[usize::from(index)].frame.clone() };
        let now = Instant::now();
        self.viewer.tally().on_sent(now, due, ticks, index);
        self.connection.endpoint.write_frame(now, &frame, None)?;
        self.connection.flush(self.viewer)?;
        self.next = clip.after(index);
        self.count += 1;
        Ok(())
    }

    /// Applies the times of outages and bad conditions, which are set for all sessions while these
    /// run.
    fn follow_times(&mut self) {
        let times = self.stage.times.lock().clone();
        if times == self.times {
            return;
        }
        if let Some(outage) = times.outage.clone() {
            self.connection.set_outage(outage);
        }
        if let Some(bad) = times.bad.clone() {
            self.connection.set_bad(bad);
        }
        self.times = times;
    }

    fn on_event(&mut self, event: ClientEvent) -> Result<(), Broken> {
        match event {
            ClientEvent::Frame { frame, gap, arrived } => self.on_frame(frame, gap, arrived),
            ClientEvent::KeyframeWanted => {
                self.restart = true;
                self.viewer.tally().slice_mut().keyframes.wanted += 1;
            }
            ClientEvent::Message(message) => self.on_message(&message),
            ClientEvent::Ended => return Err(Broken::Ended),
            ClientEvent::Audio { .. } => {}
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: EncodedFrame, gap: bool, arrived: Instant) {
        let (arrival, decoded) = {
            let mut tally = self.viewer.tally();
            (tally.on_frame(arrived, frame.capture.0 as u32, frame.keyframe, gap), tally.decoded)
        };
        match arrival {
            Arrival::AwaitsKeyframe => {
                self.missed = true;
                self.ask_for_keyframe(arrived);
            }
            Arrival::Shown { source } if decoded => {
                let gap = std::mem::take(&mut self.missed) || gap;
                let work = Work { viewer: self.viewer.clone(), frame, gap, arrived, source };
                if !self.stage.decoders.decode(work) {
                    self.missed = true;
                    self.ask_for_keyframe(arrived);
                }
            }
            Arrival::Shown { .. } => {}
        }
    }

    fn on_message(&mut self, message: &Value) {
        self.viewer.tally().on_message(message);
    }

    fn ask_for_keyframe(&mut self, now: Instant) {
        if self.last_asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_EVERY) {
            self.last_asked = Some(now);
            self.connection.endpoint.ask_for_keyframe();
            self.viewer.tally().slice_mut().keyframes.asked += 1;
        }
    }
}

/// Describes why a set-up failed, and how to fix it.
fn explain(error: &ClientError, url: &str) -> String {
    match error {
        ClientError::Http(error) => {
            format!("{url} cannot be reached ({error}): start the gateway there (`ooblex serve`), or name another address")
        }
        ClientError::Refused(status, problem) => {
            let detail = problem["detail"].as_str().or(problem["title"].as_str());
            match detail {
                Some(detail) => format!("{url} refused the offer with status {status}: {detail}"),
                None => {
                    format!("{url} answered POST /offer with status {status}: it must be a gateway that takes {{sdp, type}} as JSON there")
                }
            }
        }
        ClientError::Answer(reason) => format!("the answer of {url} to the offer cannot be used: {reason}"),
        ClientError::Timeout(within) => format!(
            "no connection within {} s, although {url} took the offer: open its UDP port, and see that it advertises an address that is \
             reached from here (`ooblex serve --advertise`)",
            within.as_secs()
        ),
        other => other.to_string(),
    }
}
