//! One connection to Redis: made with time limits, asked in pipelines, given up at the first doubt.

use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, TlsCertificates, Value};

use super::RedisOptions;
use super::error::{ErrorKind, Fault, RedisError};

/// For a connection to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// For Redis to answer what it can answer at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long Redis lets a caller wait for something to come.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// Makes connections to one Redis.
pub(super) struct Connector {
    client: Client,
    /// For people: without the password.
    address: String,
}

/// A connection that is asked in pipelines.
pub(super) struct Line {
    connection: Connection,
    address: String,
    /// Answers to what was sent by [`Line::send`] that were not read yet.
    unread: usize,
    complaint: Option<Fault>,
}

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        let setup = |error: redis::RedisError| RedisError::Setup(error.to_string());
        let info = options.url.info().clone().set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = if options.url.is_tls() {
            // Another part of the program may have chosen already; any choice will do.
            _ = rustls::crypto::ring::default_provider().install_default();
            let read = |path: &PathBuf| std::fs::read(path).map_err(|reason| RedisError::CaFile { path: path.clone(), reason });
            let root_cert = options.ca_file.as_ref().map(read).transpose()?;
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(setup)?
        } else {
            Client::open(info).map_err(setup)?
        };
        Ok(Self { client, address: options.url.to_string() })
    }

    /// Connects. Anything asked must then be answered within a second; `patience` longer where Redis is let wait.
    pub(super) fn connect(&self, patience: Duration) -> Result<Line, Fault> {
        let fault = |error: redis::RedisError| Fault::new(&self.address, &error);
        let connection = self.client.get_connection_with_timeout(CONNECT_WITHIN).map_err(fault)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN + patience)).map_err(fault)?;
        connection.set_write_timeout(Some(ANSWER_WITHIN)).map_err(fault)?;
        let mut line = Line { connection, address: self.address.clone(), unread: 0, complaint: None };
        // A Redis that is still loading, say, takes connections and answers every command with an error.
        line.ask(redis::pipe().cmd("PING"))?.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(line)
    }
}

impl Line {
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

    /// Sends a pipeline. Its answers are read together with those of the next one that is asked.
    pub(super) fn send(&mut self, pipeline: &redis::Pipeline) -> Result<(), Fault> {
        let sent = self.connection.send_packed_command(&pipeline.get_packed_pipeline());
        sent.map_err(|error| Fault::new(&self.address, &error))?;
        self.unread += pipeline.len();
        Ok(())
    }

    /// What Redis had against something that was sent and not asked.
    pub(super) fn complaint(&mut self) -> Option<Fault> {
        self.complaint.take()
    }

    /// Subscribes to a channel and hears what is said there until `hear` has had enough; it is called with nothing when nothing
    /// was said for as long as `tick`.
    pub(super) fn listen(mut self, channel: &str, tick: Duration, mut hear: impl FnMut(Option<&[u8]>) -> bool) -> Result<(), Fault> {
        let address = self.address;
        let fault = |error: redis::RedisError| Fault::new(&address, &error);
        let mut subscriber = self.connection.as_pubsub();
        subscriber.subscribe(channel).map_err(fault)?;
        subscriber.set_read_timeout(Some(tick)).map_err(fault)?;
        loop {
            let more = match subscriber.get_message() {
                Ok(message) => hear(Some(message.get_payload_bytes())),
                Err(error) if error.is_timeout() => hear(None),
                Err(error) => return Err(fault(error)),
            };
            if !more {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Result<Result<Value, Fault>, Fault> {
        self.unread -= 1;
        match self.connection.recv_response() {
            Ok(Value::ServerError(error)) => {
                let fault = Fault::new(&self.address, &error.into());
                // Whoever has lost a right will not do better on this connection.
                if fault.kind == ErrorKind::Denied { Err(fault) } else { Ok(Err(fault)) }
            }
            Ok(value) => Ok(Ok(value)),
            Err(error) => Err(Fault::new(&self.address, &error)),
        }
    }
}
