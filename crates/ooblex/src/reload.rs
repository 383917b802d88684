//! Reload of the configuration on SIGHUP: applies the options that can change at run time.

use serde_json::Value;
use tracing::{error, info, warn};

use crate::logs::Logs;
use ooblex_api::auth::Authenticator;
use ooblex_api::tls::Certificate;
use ooblex_config::{Config, ConfigError};

/// Options that a reload applies; changes of others need a restart.
const CHANGEABLE: [&str; 2] = ["log.filter", "auth.keys"];

/// Loads the configuration again from its sources.
pub struct Reload {
    load: Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    logs: Logs,
}

impl Reload {
    /// Creates a reloader. `load` reads the configuration in the same way as at the start.
    pub fn new(logs: Logs, load: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static) -> Self {
        Self { load: Box::new(load), logs }
    }

    /// Reloads the configuration, the certificate, the keys and the token secret. Errors are
    /// logged, and the previous values stay in force.
    pub fn reload(&self, current: &Config, certificate: Option<&Certificate>, auth: Option<&Authenticator>) {
        if let Some(Err(error)) = certificate.map(Certificate::reload) {
            error!("{error}; the previous certificate stays in use");
        }
        let config = match (self.load)() {
            Ok(config) => config,
            Err(error) => return error!("{error}; the previous configuration stays in force"),
        };
        if let Some(Err(error)) = auth.map(|auth| auth.reload(&config.auth)) {
            error!("{error}; the previous keys and secrets stay in force");
        }
        match self.logs.set_filter(&config.log.filter) {
            Ok(()) => info!(filter = config.log.filter, "the configuration was read again"),
            Err(error) => error!("{error:#}; the previous filter stays in force"),
        }
        let waiting: Vec<_> = differences(current, &config).into_iter().filter(|name| !CHANGEABLE.contains(&name.as_str())).collect();
        if !waiting.is_empty() {
            warn!("these options have changed and are in force from the next start on: {}", waiting.join(", "));
        }
    }
}

/// Returns the names of the options that differ.
fn differences(before: &Config, now: &Config) -> Vec<String> {
    let as_json = |config| serde_json::to_value(config).unwrap_or_default();
    let mut names = Vec::new();
    differ("", &as_json(before), &as_json(now), &mut names);
    names
}

fn differ(path: &str, before: &Value, now: &Value, names: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            let added = now.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(added) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differ(&path, before.get(name).unwrap_or(&Value::Null), now.get(name).unwrap_or(&Value::Null), names);
            }
        }
        _ if before != now => names.push(path.into()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let (before, mut now) = (Config::default(), Config::default());
        assert!(differences(&before, &now).is_empty());
        now.limits.sessions = 1;
        now.log.filter = "debug".into();
        now.serve.allow_origins = vec!["*".into()];
        assert_eq!(differences(&before, &now), ["serve.allow_origins", "limits.sessions", "log.filter"]);
    }
}
