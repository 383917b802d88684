//! One connection to Redis: made with timeouts, used with pipelined commands, closed at the first
//! doubt.
//!
//! A connection counts as made once Redis has accepted a write on it: a replica, a Redis that is
//! full and one that is still loading also accept connections and answer PING. Answers are limited
//! in size, because a value that somebody else has written can have 512 MB.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Parser, Value};
use rustls::ClientConfig;

use super::error::{ErrorKind, Fault, RedisError};
use super::membership::PEER_TIMEOUT;
use super::options::RedisOptions;
use super::stream::{Host, Place, Stream};
use super::tls::client_config;
use super::url::{RedisUrl, Target};
use super::wire;

/// Timeout of each step in making a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Timeout of commands that Redis can answer at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Timeout of blocking commands (BLPOP) in Redis.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// Maximum size of an answer in bytes. It depends on the purpose of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(usize);

impl Limit {
    /// Limit for numbers, names and announcements.
    pub(super) const SMALL: Limit = Limit(64 << 10);
    /// Limit for one frame.
    pub(super) const FRAME: Limit = Limit(wire::MAX_BYTES + (64 << 10));
    /// Limit for several results at a time.
    pub(super) const RESULTS: Limit = Limit(32 << 20);

    pub(super) fn bytes(self) -> usize {
        self.0
    }
}

/// Makes connections to one Redis.
pub(super) struct Connector {
    url: RedisUrl,
    tls: Option<Arc<ClientConfig>>,
    /// Key that is written to test whether Redis accepts writes.
    probe: String,
    /// Index of the Sentinel that gave a good answer last.
    sentinel: AtomicUsize,
}

/// Connection to Redis with pipelined commands.
pub(super) struct PipelinedConnection {
    stream: Stream,
    parser: Parser,
    address: String,
    limit: Limit,
    /// Number of bytes that the current answer may still have.
    allowance: usize,
    /// Number of unread answers to commands that [`PipelinedConnection::send`] has sent.
    unread: usize,
    complaint: Option<Fault>,
}

impl Connector {
    pub(super) fn new(options: &RedisOptions, probe: String) -> Result<Self, RedisError> {
        let tls = options.url.is_tls().then(|| client_config(options)).transpose()?;
        Ok(Self { url: options.url.clone(), tls, probe, sentinel: AtomicUsize::new(0) })
    }

    /// Connects. Each command must then be answered within a second, plus `patience` on connections
    /// with blocking commands.
    pub(super) fn connect(&self, patience: Duration, limit: Limit) -> Result<PipelinedConnection, Fault> {
        let (sentinels, master) = match self.url.target() {
            Target::Server(place) => return self.enter(place, self.url.to_string(), patience, limit),
            Target::Sentinels { sentinels, master } => (sentinels, master),
        };
        let first = self.sentinel.load(Ordering::Relaxed);
        let mut fault = None;
        // A Sentinel that is cut off from the others may name a former master, so the next one is
        // asked then.
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
                // An error of Redis itself says more than that a Sentinel is unreachable.
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

    /// Asks a Sentinel for the address of the master.
    fn master(&self, sentinel: &Host, master: &str) -> Result<Host, Fault> {
        let (place, address) = (Place::Tcp(sentinel.clone()), format!("{sentinel} (a Sentinel)"));
        let connect = || PipelinedConnection::connect(&place, self.tls.as_ref(), address.clone(), Limit::SMALL);
        let mut line = connect()?;
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let mut answer = line.ask_once(&question);
        if matches!(&answer, Err(fault) if fault.kind == ErrorKind::Denied)
            && let Some(login) = self.login()
        {
            // A Sentinel may require a login. That of Redis is tried.
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

    /// Connects to a Redis, logs in, and tests whether it accepts writes.
    fn enter(&self, place: &Place, address: String, patience: Duration, limit: Limit) -> Result<PipelinedConnection, Fault> {
        let mut line = PipelinedConnection::connect(place, self.tls.as_ref(), address, limit)?;
        let mut setup = self.login().unwrap_or_default();
        if self.url.database() != 0 {
            setup.cmd("SELECT").arg(self.url.database());
        }
        setup.cmd("SET").arg(&self.probe).arg("").arg("PX").arg(PEER_TIMEOUT.as_millis() as u64);
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

impl PipelinedConnection {
    fn connect(place: &Place, tls: Option<&Arc<ClientConfig>>, address: String, limit: Limit) -> Result<Self, Fault> {
        let stream = Stream::connect(place, tls, CONNECT_WITHIN).map_err(|error| Fault::io(&address, &error))?;
        Ok(Self { stream, parser: Parser::new(), address, limit, allowance: limit.bytes(), unread: 0, complaint: None })
    }

    /// Sends a pipeline and waits for its answers, one per command. The outer error means that the
    /// connection is unusable, an inner one is the error of that command.
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

    /// Sends a single command and returns its answer.
    fn ask_once(&mut self, command: &redis::Pipeline) -> Result<Value, Fault> {
        self.ask(command)?.pop().unwrap_or(Ok(Value::Nil))
    }

    /// Sends a pipeline without waiting. Its answers are read by the next [`PipelinedConnection::ask`].
    pub(super) fn send(&mut self, pipeline: &redis::Pipeline) -> Result<(), Fault> {
        self.stream.send(&pipeline.get_packed_pipeline()).map_err(|error| Fault::io(&self.address, &error))?;
        self.unread += pipeline.len();
        Ok(())
    }

    /// Takes the last error of a command that [`PipelinedConnection::send`] has sent.
    pub(super) fn complaint(&mut self) -> Option<Fault> {
        self.complaint.take()
    }

    /// Subscribes to a channel and passes its messages to `hear`, until that returns false. After
    /// each `tick` without a message, `hear` gets `None`.
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
                // The parser keeps the part of a message that has arrived by then.
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
                // A missing permission and a replica stay so for the life of the connection, so it
                // is given up.
                if matches!(fault.kind, ErrorKind::Denied | ErrorKind::NotReady) { Err(fault) } else { Ok(Err(fault)) }
            }
            Ok(value) => Ok(Ok(value)),
            Err(broken) => Err(self.fault(broken)),
        }
    }

    /// Reads the next answer.
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

/// Reason why no answer could be read.
enum Broken {
    Io(io::Error),
    /// The answer is longer than the limit of this connection.
    TooLong,
    /// The bytes are not of the Redis protocol.
    Foreign,
}

/// Reader with the size limit of an answer. Bytes of the next answer that were read ahead do not
/// count for its limit.
struct Limited<'a> {
    stream: &'a mut Stream,
    allowance: &'a mut usize,
    failed: Option<io::Error>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(*self.allowance);
        if most == 0 {
            // The parser takes a read of zero bytes for the end of the connection.
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

/// Returns whether the error is a timeout of a socket, which has either kind.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
