//! HTTP client for JWKS, for the authentication hook, and for other servers of WHIP and WHEP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Builds an HTTP client with `timeout` for a whole request. It follows no redirects, which could
/// lead to a server that the operator did not choose.
pub(crate) fn agent(timeout: Duration) -> Agent {
    agent_trusting(timeout, authorities())
}

/// Builds an HTTP client as [`agent`] does, which trusts more certificate authorities.
pub(crate) fn agent_with(timeout: Duration, more: Vec<Certificate<'static>>) -> Agent {
    agent_trusting(timeout, Arc::new(authorities().iter().cloned().chain(more).collect()))
}

fn agent_trusting(timeout: Duration, authorities: Arc<Vec<Certificate<'static>>>) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(authorities))
        .build();
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("ooblex/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls);
    config.build().new_agent()
}

/// Returns the certificate authorities of the operating system, read once.
fn authorities() -> Arc<Vec<Certificate<'static>>> {
    static AUTHORITIES: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let read = || rustls_native_certs::load_native_certs().certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    AUTHORITIES.get_or_init(|| Arc::new(read())).clone()
}
