//! Where a Redis is and who we are there. The password is never shown.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// The address of a Redis with user, password and database:
/// `redis://[user][:password@]host[:port][/database]`, `rediss://…` (TLS), `redis+unix:///path[?db=1&user=…&pass=…]`.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

/// A text that is no address of a Redis. It is not repeated here, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: write redis://[user][:password@]host[:port][/database], rediss://… for TLS, or redis+unix:///path?db=0")]
pub struct UrlError {
    reason: String,
}

impl RedisUrl {
    /// With this password in place of the one in the address.
    pub fn with_password(self, password: &str) -> Self {
        let settings = self.0.redis_settings().clone().set_password(password);
        Self(self.0.set_redis_settings(settings))
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.0.redis_settings().db()
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.0.addr(), ConnectionAddr::TcpTls { .. })
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refused = |reason: &str| UrlError { reason: reason.into() };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|scheme| ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"].contains(&scheme)) {
            return Err(refused("this is not the address of a Redis"));
        }
        let info = text.into_connection_info().map_err(|_| refused("the address of Redis is not understood"))?;
        if info.redis_settings().db() < 0 {
            return Err(refused("the number of the database is negative"));
        }
        if info.addr() == &ConnectionAddr::Unix(PathBuf::new()) {
            return Err(refused("the path of the socket is missing"));
        }
        Ok(Self(info))
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &ConnectionInfo, b: &ConnectionInfo| {
            let (a, b) = (a.redis_settings(), b.redis_settings());
            a.username() == b.username() && a.password() == b.password() && a.db() == b.db()
        };
        self.0.addr() == other.0.addr() && same(&self.0, &other.0)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.0.redis_settings();
        let user = settings.username().unwrap_or_default();
        let who = match settings.password() {
            Some(_) => format!("{user}:***@"),
            None if user.is_empty() => String::new(),
            None => format!("{user}@"),
        };
        let database = settings.db();
        match self.0.addr() {
            ConnectionAddr::Unix(path) => write!(f, "redis+unix://{who}{}?db={database}", path.display()),
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{who}{host}:{port}/{database}"),
            other => write!(f, "redis://{who}{other}/{database}"),
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
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_and_without_its_text() {
        for text in
            ["", "local", "localhost:6379", "http://secret@host", "redis://", "redis://host:port", "redis://host/-1", "redis://h/secret"]
        {
            let refusal = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(refusal.contains("redis://[user]") && !refusal.contains("secret"), "{text}: {refusal}");
        }
    }

    #[test]
    fn password_from_elsewhere_takes_the_place_of_the_one_in_the_address() {
        let url = "redis://user:old@host".parse::<RedisUrl>().unwrap();
        assert_eq!(url.clone().with_password("new"), "redis://user:new@host".parse().unwrap());
        assert_ne!(url.with_password("new"), "redis://user:old@host".parse().unwrap());
    }
}
