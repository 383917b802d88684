//! `ooblex check --health URL`: queries the health of a local gateway or worker, for containers
//! without an HTTP client.
//!
//! With https it accepts any certificate, because it queries its own machine and the answer is not
//! secret.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::TlsConfig;

/// Timeout of each network operation.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(3));
/// Longest accepted answer in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Sends a GET request to `url`. Returns the body of a 200 answer.
///
/// # Errors
/// Any other status with its body, or the reason why there is no answer.
pub fn health(url: &str) -> Result<String, String> {
    if !url.parse::<Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.port().is_some()) {
        return Err(format!("{url} is not a valid address: write http://127.0.0.1:8000/healthz"));
    }
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .disable_verification(true)
        .build();
    let config = Agent::config_builder()
        .timeout_connect(TIMEOUT)
        .timeout_per_read(TIMEOUT)
        .timeout_per_write(TIMEOUT)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls);
    let unreachable = |error: ureq::Error| format!("{url} does not answer: {error}");
    let mut answer = config.build().new_agent().get(url).call().map_err(unreachable)?;
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).lossy_utf8(true).read_to_string().map_err(unreachable)?;
    match answer.status().as_u16() {
        200 => Ok(body.trim().into()),
        status => Err(format!("status {status}: {}", body.trim())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Returns the result for a server that gives this answer.
    fn answered(answer: &'static str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = health(&url);
        server.join().unwrap();
        result
    }

    #[test]
    fn only_status_200_is_well() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nalive\n"), Ok("alive".into()));
        let unready = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 10\r\n\r\nno worker\n";
        assert_eq!(answered(unready), Err("status 503: no worker".into()));
        let elsewhere = "HTTP/1.1 308 Permanent Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answered(elsewhere), Err("status 308: ".into()));
        assert!(answered("+PONG\r\n").unwrap_err().contains("does not answer"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for url in ["localhost", "ftp://127.0.0.1:21/", "http://127.0.0.1/healthz", "http://127.0.0.1:port/"] {
            assert!(health(url).unwrap_err().contains("http://127.0.0.1:8000/healthz"), "{url}");
        }
    }
}
