//! One connection to Redis: made with time limits, asked in pipelines, given up at the first doubt.
//!
//! A connection counts as made when Redis has taken a write on it: a replica, a Redis that is full and one that is still loading
//! take connections and answer PING. Answers are limited in size: a value that somebody else has written may have 512 MB.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Parser, Value};
use rustls::ClientConfig;

use super::RedisOptions;
use super::error::{ErrorKind, Fault, RedisError};
use super::roster::GONE_AFTER;
use super::stream::{Host, Place, Stream};
use super::tls::client_config;
use super::url::{RedisUrl, Target};
use super::wire;

/// Timeout of every step in making a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Timeout of answers that Redis can give at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long Redis lets a caller wait for something to come.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// The largest answer that is read, bytes. What a connection is for decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(usize);

impl Limit {
    /// Numbers, names and announcements.
    pub(super) const SMALL: Limit = Limit(64 << 10);
    /// One frame.
    pub(super) const FRAME: Limit = Limit(wire::MAX_BYTES + (64 << 10));
    /// Results, several at a time.
    pub(super) const RESULTS: Limit = Limit(32 << 20);

    pub(super) fn bytes(self) -> usize {
        self.0
    }
}

/// Makes connections to one Redis.
pub(super) struct Connector {
    url: RedisUrl,
    tls: Option<Arc<ClientConfig>>,
    /// The key that is written to see whether Redis takes writes.
    probe: String,
    /// The Sentinel that gave a good answer last.
    sentinel: AtomicUsize,
}

/// A connection that is asked in pipelines.
pub(super) struct Line {
    stream: Stream,
    parser: Parser,
    address: String,
    limit: Limit,
    /// Bytes that the answer that is being read may still have.
    allowance: usize,
    /// Answers to what was sent by [`Line::send`] that were not read yet.
    unread: usize,
    complaint: Option<Fault>,
}

impl Connector {
    pub(super) fn new(options: &RedisOptions, probe: String) -> Result<Self, RedisError> {
        let tls = options.url.is_tls().then(|| client_config(options)).transpose()?;
        Ok(Self { url: options.url.clone(), tls, probe, sentinel: AtomicUsize::new(0) })
    }

    /// Connects. Anything asked must then be answered within a second; `patience` longer where Redis is let wait.
    pub(super) fn connect(&self, patience: Duration, limit: Limit) -> Result<Line, Fault> {
        let (sentinels, master) = match self.url.target() {
            Target::Server(place) => return self.enter(place, self.url.to_string(), patience, limit),
            Target::Sentinels { sentinels, master } => (sentinels, master),
        };
        let first = self.sentinel.load(Ordering::Relaxed);
        let mut fault = None;
        // One that is cut off from the others names a master that is none any more, so then the next is asked.
        for number in (0..sentinels.len()).map(|number| (first + number) % sentinels.len()) {
            let entered = self.master(&sentinels[number], master).and_then(|found| {
                let address = format!("{found} (the master {master} of the Sentinels)");
                self.enter(&Place::Tcp(found), address, patience, limit)
            });
            match entered {
                Ok(line) => {
                    self.sentinel.store(number, Ordering::Relaxed);
                    return Ok(line);
                }
                // An answer of Redis itself says more than a Sentinel that is not there.
                Err(other) => {
                    let better = fault.as_ref().is_none_or(|fault: &Fault| fault.kind == ErrorKind::Unreachable);
                    if better {
                        fault = Some(other);
                    }
                }
            }
        }
        Err(fault.unwrap_or_else(|| Fault::other(&self.url.to_string(), "no Sentinel is named")))
    }

    /// Asks a Sentinel where the master is.
    fn master(&self, sentinel: &Host, master: &str) -> Result<Host, Fault> {
        let (place, address) = (Place::Tcp(sentinel.clone()), format!("{sentinel} (a Sentinel)"));
        let connect = || Line::connect(&place, self.tls.as_ref(), address.clone(), Limit::SMALL);
        let mut line = connect()?;
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let mut answer = line.ask_once(&question);
        if matches!(&answer, Err(fault) if fault.kind == ErrorKind::Denied)
            && let Some(login) = self.login()
        {
            // A Sentinel may have users of its own: those of Redis are tried.
            line = connect()?;
            line.ask_once(&login)?;
            answer = line.ask_once(&question);
        }
        let Value::Array(parts) = answer? else {
            return Err(Fault::other(&address, &format!("it knows no master {master:?}: see the name at the end of broker.url")));
        };
        let text = |value: &Value| if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None };
        let named = match parts.iter().map(text).collect::<Option<Vec<_>>>().as_deref() {
            Some([name, port]) => port.parse().ok().map(|port| Host { name: name.clone(), port }),
            _ => None,
        };
        named.ok_or_else(|| Fault::other(&address, "it names no host and port"))
    }

    /// Connects to a Redis, says who we are, and sees whether it takes writes.
    fn enter(&self, place: &Place, address: String, patience: Duration, limit: Limit) -> Result<Line, Fault> {
        let mut line = Line::connect(place, self.tls.as_ref(), address, limit)?;
        let mut setup = self.login().unwrap_or_default();
        if self.url.database() != 0 {
            setup.cmd("SELECT").arg(self.url.database());
        }
        setup.cmd("SET").arg(&self.probe).arg("").arg("PX").arg(GONE_AFTER.as_millis() as u64);
        line.ask(&setup)?.into_iter().collect::<Result<Vec<_>, _>>()?;
        line.set_read_timeout(ANSWER_WITHIN + patience)?;
        Ok(line)
    }

    fn login(&self) -> Option<redis::Pipeline> {
        let password = self.url.password()?;
        let mut login = redis::pipe();
        match self.url.user() {
            Some(user) => login.cmd("AUTH").arg(user).arg(password),
            None => login.cmd("AUTH").arg(password),
        };
        Some(login)
    }
}

impl Line {
    fn connect(place: &Place, tls: Option<&Arc<ClientConfig>>, address: String, limit: Limit) -> Result<Self, Fault> {
        let stream = Stream::connect(place, tls, CONNECT_WITHIN).map_err(|error| Fault::io(&address, &error))?;
        Ok(Self { stream, parser: Parser::new(), address, limit, allowance: limit.bytes(), unread: 0, complaint: None })
    }

    /// Sends a pipeline and waits for its answers, one a command. The outer error is the end of the connection, an inner one is
    /// what Redis has against that one command.
    pub(super) fn ask(&mut self, pipeline: &redis::Pipeline) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let before = self.unread;
        self.send(pipeline)?;
        for _ in 0..before {
            if let Err(fault) = self.read()? {
                self.complaint = Some(fault);
            }
        }
        (0..pipeline.len()).map(|_| self.read()).collect()
    }

    /// The answer to a single command.
    fn ask_once(&mut self, command: &redis::Pipeline) -> Result<Value, Fault> {
        self.ask(command)?.pop().unwrap_or(Ok(Value::Nil))
    }

    /// Sends a pipeline. Its answers are read together with those of the next one that is asked.
    pub(super) fn send(&mut self, pipeline: &redis::Pipeline) -> Result<(), Fault> {
        self.stream.send(&pipeline.get_packed_pipeline()).map_err(|error| Fault::io(&self.address, &error))?;
        self.unread += pipeline.len();
        Ok(())
    }

    /// Takes the error that Redis has answered to something that was sent and not asked.
    pub(super) fn complaint(&mut self) -> Option<Fault> {
        self.complaint.take()
    }

    /// Subscribes to a channel and hears what is said there until `hear` has had enough; it is called with nothing when nothing
    /// was said for as long as `tick`.
    pub(super) fn listen(mut self, channel: &str, tick: Duration, mut hear: impl FnMut(Option<&[u8]>) -> bool) -> Result<(), Fault> {
        self.ask(redis::pipe().cmd("SUBSCRIBE").arg(channel))?.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.set_read_timeout(tick)?;
        loop {
            let more = match self.receive() {
                Ok(Value::Array(parts)) => match &parts[..] {
                    [Value::BulkString(kind), _, Value::BulkString(said)] if kind == b"message" => hear(Some(said)),
                    _ => true,
                },
                Ok(Value::ServerError(error)) => return Err(Fault::server(&self.address, &error)),
                Ok(_) => true,
                // The part of a message that has come by then stays with the parser.
                Err(Broken::Io(error)) if is_timeout(&error) => hear(None),
                Err(broken) => return Err(self.fault(broken)),
            };
            if !more {
                return Ok(());
            }
        }
    }

    fn set_read_timeout(&self, within: Duration) -> Result<(), Fault> {
        self.stream.set_read_timeout(within).map_err(|error| Fault::io(&self.address, &error))
    }

    fn read(&mut self) -> Result<Result<Value, Fault>, Fault> {
        self.unread -= 1;
        match self.receive() {
            Ok(Value::ServerError(error)) => {
                let fault = Fault::server(&self.address, &error);
                // A lost right and a replica stay what they are for as long as the connection lives.
                if matches!(fault.kind, ErrorKind::Denied | ErrorKind::NotReady) { Err(fault) } else { Ok(Err(fault)) }
            }
            Ok(value) => Ok(Ok(value)),
            Err(broken) => Err(self.fault(broken)),
        }
    }

    /// The next answer.
    fn receive(&mut self) -> Result<Value, Broken> {
        let mut limited = Limited { stream: &mut self.stream, allowance: &mut self.allowance, failed: None };
        let parsed = self.parser.parse_value(&mut limited);
        let failed = limited.failed;
        match parsed {
            Ok(value) => {
                self.allowance = self.limit.bytes();
                Ok(value)
            }
            Err(error) => Err(match failed {
                Some(error) => Broken::Io(error),
                None if self.allowance == 0 => Broken::TooLong,
                None if error.is_io_error() => Broken::Io(io::ErrorKind::UnexpectedEof.into()),
                None => Broken::Foreign,
            }),
        }
    }

    fn fault(&self, broken: Broken) -> Fault {
        match broken {
            Broken::Io(error) => Fault::io(&self.address, &error),
            Broken::TooLong => Fault::too_long(&self.address, self.limit.bytes()),
            Broken::Foreign => Fault::other(&self.address, "it does not speak the protocol of Redis"),
        }
    }
}

/// Why there is no answer.
enum Broken {
    Io(io::Error),
    /// It is longer than this connection may get.
    TooLong,
    /// It is not of Redis's protocol.
    Foreign,
}

/// Lets through as much as an answer may have. What has been read beyond an answer counts for the next one.
struct Limited<'a> {
    stream: &'a mut Stream,
    allowance: &'a mut usize,
    failed: Option<io::Error>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(*self.allowance);
        if most == 0 {
            // Nothing more is what the end of a connection looks like.
            return Ok(0);
        }
        loop {
            match self.stream.read(&mut buffer[..most]) {
                Ok(bytes) => {
                    *self.allowance -= bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failed = Some(error);
                    return Err(kind.into());
                }
            }
        }
    }
}

/// Both are what sockets say whose time is over.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
