//! Address of a Redis, with user and password. The password is never displayed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::stream::{Host, Place};

/// Address of a Redis with user, password and database:
/// `redis://[user][:password@]host[:port][/database]`, `rediss://…` (TLS),
/// `redis+unix:///path[?db=1&user=…&pass=…]`, or by its Sentinels
/// `redis+sentinel://[user][:password@]host[:port],…/master[/database]`,
/// `rediss+sentinel://…` (TLS).
#[derive(Clone, PartialEq)]
pub struct RedisUrl {
    target: Target,
    is_tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

/// Server or Sentinels that an address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A fixed server.
    Server(Place),
    /// The server that these Sentinels report as the master of this name.
    Sentinels { sentinels: Vec<Host>, master: String },
}

/// The text is not the address of a Redis. The error does not repeat the text, because it may
/// contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}: write redis://[user][:password@]host[:port][/database], rediss://… for TLS, redis+unix:///path?db=0, or \
     redis+sentinel://[user][:password@]host:port,host:port/master-name[/database]"
)]
pub struct UrlError {
    reason: String,
}

/// Maximum number of Sentinels in an address.
const MAX_SENTINELS: usize = 16;
/// Default port of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// Reason for an address that cannot be parsed because of a special character in its password.
const PERCENT: &str = "the address of Redis is not understood; characters of a password such as / ? # @ : and % must be percent-encoded in it \
                       (# as %23, / as %2F, % as %25), or put the password into broker.password_file";

impl RedisUrl {
    /// Returns the address with this password in place of its own.
    pub fn with_password(self, password: &str) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// Returns the number of the database.
    pub fn database(&self) -> i64 {
        self.database
    }

    /// Returns whether the connection is encrypted with TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    fn new(target: Target, info: &ConnectionInfo) -> Self {
        let settings = info.redis_settings();
        Self {
            target,
            is_tls: matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
            user: settings.username().filter(|user| !user.is_empty()).map(Into::into),
            password: settings.password().map(Into::into),
            database: settings.db(),
        }
    }

    /// Parses an address by Sentinels. `rest` is the text after `redis+sentinel://`.
    fn sentinels(scheme: &str, rest: &str) -> Result<Self, UrlError> {
        let (login, rest) = rest.rsplit_once('@').map_or((String::new(), rest), |(login, rest)| (format!("{login}@"), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        if master.is_empty() || master.contains(['?', '#', '%']) {
            return Err(refused("the name of the master is missing"));
        }
        let mut sentinels = Vec::new();
        for host in hosts.split(',') {
            // The colons of an IPv6 address are inside its brackets, so a colon after them precedes
            // the port.
            let has_port = host.rsplit_once(']').map_or(host, |(_, rest)| rest).contains(':');
            let host = if has_port { host.to_string() } else { format!("{host}:{SENTINEL_PORT}") };
            match parse(&format!("redis://{host}"))?.addr() {
                ConnectionAddr::Tcp(name, port) if !name.is_empty() => sentinels.push(Host { name: name.clone(), port: *port }),
                _ => return Err(refused("the address of a Sentinel is not understood")),
            }
        }
        if sentinels.len() > MAX_SENTINELS {
            return Err(refused(&format!("more than {MAX_SENTINELS} Sentinels are named")));
        }
        // The parser of the redis crate reads the user, the password and the database.
        let info = parse(&format!("{scheme}://{login}sentinel/{database}"))?;
        Ok(Self::new(Target::Sentinels { sentinels, master: master.into() }, &info))
    }
}

fn refused(reason: &str) -> UrlError {
    UrlError { reason: reason.into() }
}

fn parse(text: &str) -> Result<ConnectionInfo, UrlError> {
    let info = text
        .into_connection_info()
        .map_err(|_| refused(if text.contains('@') { PERCENT } else { "the address of Redis is not understood" }))?;
    if info.redis_settings().db() < 0 {
        return Err(refused("the number of the database is negative"));
    }
    Ok(info)
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("this is not the address of a Redis"))?;
        let is_socket = ["redis+unix", "valkey+unix", "unix"].contains(&scheme);
        // One of these characters in a password makes the rest of it a path or a query.
        let login = rest.rsplit_once('@').map_or("", |(login, _)| login);
        if !is_socket && (login.contains(['/', '?']) || rest.contains('#')) {
            return Err(refused(PERCENT));
        }
        match scheme {
            "redis+sentinel" | "valkey+sentinel" => return Self::sentinels("redis", rest),
            "rediss+sentinel" | "valkeys+sentinel" => return Self::sentinels("rediss", rest),
            "redis" | "rediss" | "valkey" | "valkeys" => {}
            _ if is_socket => {}
            _ => return Err(refused("this is not the address of a Redis")),
        }
        let info = parse(text)?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(name, port) | ConnectionAddr::TcpTls { host: name, port, .. } => {
                Place::Tcp(Host { name: name.clone(), port: *port })
            }
            ConnectionAddr::Unix(path) if *path == PathBuf::new() => return Err(refused("the path of the socket is missing")),
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err(refused("this is not the address of a Redis")),
        };
        Ok(Self::new(Target::Server(place), &info))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user().unwrap_or_default();
        let who = match self.password {
            Some(_) => format!("{user}:***@"),
            None if user.is_empty() => String::new(),
            None => format!("{user}@"),
        };
        let (s, database) = (if self.is_tls { "s" } else { "" }, self.database);
        match &self.target {
            Target::Server(Place::Unix(path)) => write!(f, "redis+unix://{who}{}?db={database}", path.display()),
            Target::Server(Place::Tcp(host)) => write!(f, "redis{s}://{who}{host}/{database}"),
            Target::Sentinels { sentinels, master } => {
                let hosts: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
                write!(f, "redis{s}+sentinel://{who}{}/{master}/{database}", hosts.join(","))
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_shown_without_its_password() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://:secret@10.0.0.1:7000/3", "redis://:***@10.0.0.1:7000/3"),
            ("rediss://gateway:secret@redis.example", "rediss://gateway:***@redis.example:6379/0"),
            ("redis+unix:///run/redis.sock?db=2&user=worker&pass=secret", "redis+unix://worker:***@/run/redis.sock?db=2"),
            ("unix:///run/redis.sock", "redis+unix:///run/redis.sock?db=0"),
            ("redis+sentinel://a:7000,b/video", "redis+sentinel://a:7000,b:26379/video/0"),
            (
                "redis+sentinel://worker:secret@10.0.0.1:7000,10.0.0.2:7001/video/3",
                "redis+sentinel://worker:***@10.0.0.1:7000,10.0.0.2:7001/video/3",
            ),
            ("rediss+sentinel://:secret@[::1]:7000,[::2]/video", "rediss+sentinel://:***@::1:7000,::2:26379/video/0"),
        ] {
            let url: RedisUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_and_without_its_text() {
        for text in [
            "",
            "local",
            "localhost:6379",
            "http://secret@host",
            "redis://",
            "redis://host:port",
            "redis://host/-1",
            "redis://h/secret",
            "redis+sentinel://",
            "redis+sentinel://host:7000",
            "redis+sentinel://host:7000/",
            "redis+sentinel:///secret",
            "redis+sentinel://host:7000,/secret",
            "redis+sentinel://host:port/secret",
            "redis+sentinel://host/secret/-1",
            "redis+sentinel://host/secret/x",
        ] {
            let refusal = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(refusal.contains("redis://[user]") && !refusal.contains("secret"), "{text}: {refusal}");
        }
    }

    #[test]
    fn password_with_special_characters_is_answered_with_how_they_are_written() {
        for text in [
            "redis://user:sec/ret@host",
            "redis://user:sec?ret@host/1",
            "redis://user:sec#ret@host",
            "redis://:12/ret@host",
            "redis://sec#ret",
            "rediss://:sec[ret@host:port/0",
            "redis+sentinel://user:sec/ret@host:7000/video",
            "redis+sentinel://user:sec#ret@host:7000/video",
        ] {
            let refusal = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(refusal.contains("percent-encoded") && refusal.contains("broker.password_file"), "{text}: {refusal}");
            assert!(!refusal.contains("sec") && !refusal.contains("ret@"), "{text}: {refusal}");
        }
        for text in ["redis://user:a%2Fb%23c%25d%40e@host", "redis+sentinel://user:a%2Fb%23c%25d%40e@host/video"] {
            assert_eq!(text.parse::<RedisUrl>().unwrap().password(), Some("a/b#c%d@e"), "{text}");
        }
    }

    #[test]
    fn password_from_elsewhere_takes_the_place_of_the_one_in_the_address() {
        let url = "redis://user:old@host".parse::<RedisUrl>().unwrap();
        assert_eq!(url.clone().with_password("new"), "redis://user:new@host".parse().unwrap());
        assert_ne!(url.with_password("new"), "redis://user:old@host".parse().unwrap());
    }
}
