//! `ooblex check --health URL`: queries the health of a local gateway or worker, for containers
//! without an HTTP client.
//!
//! It implements a minimal HTTP client. With https it accepts any certificate, because it queries
//! its own machine and the answer is not secret.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Timeout of each network operation.
const WITHIN: Duration = Duration::from_secs(3);
/// Longest accepted answer in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Sends a GET request to `url`. Returns the body of a 200 answer.
///
/// # Errors
/// Any other status with its body, or the reason why there is no answer.
pub fn health(url: &str) -> Result<String, String> {
    let wrong = || format!("{url} is not a valid address: write http://127.0.0.1:8000/healthz");
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)).ok_or_else(wrong)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let unreachable = |error: std::io::Error| format!("{url} does not answer: {error}");
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = (bare, port).to_socket_addrs().map_err(unreachable)?.next().ok_or_else(wrong)?;
    let stream = TcpStream::connect_timeout(&address, WITHIN).map_err(unreachable)?;
    stream.set_read_timeout(Some(WITHIN)).and_then(|()| stream.set_write_timeout(Some(WITHIN))).map_err(unreachable)?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    let answer = match scheme {
        "https" => ask(tls(stream, bare)?, &request),
        _ => ask(stream, &request),
    };
    read(&answer.map_err(unreachable)?).unwrap_or_else(|| Err(format!("{url} does not answer in HTTP")))
}

fn ask(mut stream: impl Read + Write, request: &str) -> std::io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        // Some servers close TLS without close_notify; the bytes that arrived are used.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn read(answer: &[u8]) -> Option<Result<String, String>> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let body = body.trim().to_string();
    Some(if status == "200" { Ok(body) } else { Err(format!("status {status}: {body}")) })
}

fn tls(stream: TcpStream, host: &str) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).map_err(|error| error.to_string())?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_status_200_is_well() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nalive\n"), Some(Ok("alive".into())));
        assert_eq!(read(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno worker\n"), Some(Err("status 503: no worker".into())));
        assert_eq!(read(b"+PONG\r\n"), None);
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for url in ["localhost", "ftp://127.0.0.1:21/", "http://127.0.0.1/healthz", "http://127.0.0.1:port/"] {
            assert!(health(url).unwrap_err().contains("http://127.0.0.1:8000/healthz"), "{url}");
        }
    }
}
