//! HTTPS of `ooblex serve` without a reverse proxy: the certificate, and the start of a TLS
//! connection.
//!
//! A certificate is reloaded when its file changes or on SIGHUP; open connections are not affected.
//! Plain HTTP requests to the port are redirected to HTTPS.

use ooblex_config::TlsFiles;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use parking_lot::{RwLock, RwLockReadGuard};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// Interval between checks whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// First byte of a TLS connection: the record type of a handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// Longest head of a plain HTTP request that is read for the redirect, in bytes.
const MAX_HEAD: usize = 4096;

/// A certificate that cannot be used. The message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, not readable, or not PEM.
    #[error("{option} {path} cannot be used ({reason}): name a PEM file that this user may read")]
    File {
        /// Configuration option that names the file.
        option: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error text.
        reason: String,
    },
    /// The key does not belong to the certificate, or has an unsupported type.
    #[error(
        "serve.tls_key {key} does not belong to the certificate in serve.tls_certificate {certificate} ({reason}): name the two that were issued together"
    )]
    Mismatch {
        /// Path of the certificate.
        certificate: PathBuf,
        /// Path of the key.
        key: PathBuf,
        /// Error text of the TLS library.
        reason: String,
    },
}

/// Names and remaining validity of a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// DNS names and IP addresses of the certificate.
    pub names: Vec<String>,
    /// Remaining validity in days; negative if the certificate has expired.
    pub days_left: i32,
}

/// The certificate in use, which can be reloaded.
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    about: About,
    changed: Option<SystemTime>,
}

impl Certificate {
    /// Loads the certificate and its key.
    ///
    /// # Errors
    /// When they cannot be used; the message names the remedy.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reloads the files. New connections use the new certificate.
    ///
    /// # Errors
    /// When they cannot be used; the previous certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = read(&self.files)?;
        info!(names = read.about.names.join(","), days_left = read.about.days_left, "the certificate was read again");
        *self.current.write() = read;
        Ok(())
    }

    /// Returns the names and the remaining validity of the certificate.
    pub fn about(&self) -> About {
        self.read().about.clone()
    }

    /// Checks periodically whether the files have changed, and reloads them if so.
    pub async fn watch(self: Arc<Self>) {
        let mut refused = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let certificate = self.clone();
            // Reading files may block for long on a network file system.
            let looked = tokio::task::spawn_blocking(move || certificate.look(refused)).await;
            refused = looked.unwrap_or(refused);
        }
    }

    /// Reloads the files if they have changed. `refused` is the modification time of files that
    /// could not be loaded, which are not tried again. Returns its new value.
    fn look(&self, refused: Option<SystemTime>) -> Option<SystemTime> {
        let changed = changed(&self.files);
        if changed == self.read().changed || changed == refused {
            return refused;
        }
        // Partly written files get another modification time and are tried again.
        let failed = self.reload().inspect_err(|error| warn!("{error}; the previous certificate stays in use")).is_err();
        if failed { changed } else { refused }
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read().key.clone())
    }
}

fn read(files: &TlsFiles) -> Result<Current, TlsError> {
    let unusable = |option, path: &PathBuf, reason: String| TlsError::File { option, path: path.clone(), reason };
    let certificate = |reason| unusable("serve.tls_certificate", &files.certificate, reason);
    let changed = changed(files);
    let pem = std::fs::read(&files.certificate).map_err(|error| certificate(error.to_string()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(certificate("it holds no certificate".into()));
    }
    let about = about(&pem).map_err(|error| certificate(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable("serve.tls_key", &files.key, error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| TlsError::Mismatch {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })?;
    Ok(Current { key: Arc::new(key), about, changed })
}

/// Returns the latest modification time of the two files.
fn changed(files: &TlsFiles) -> Option<SystemTime> {
    let written = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    written(&files.certificate).max(written(&files.key))
}

fn about(pem: &[u8]) -> Result<About, openssl::error::ErrorStack> {
    let certificate = X509::from_pem(pem)?;
    let left = Asn1Time::days_from_now(0)?.diff(certificate.not_after())?;
    // A certificate that expired less than a day ago has zero days left, but is expired.
    let over = left.days < 0 || left.secs < 0;
    let days_left = if over { left.days.min(-1) } else { left.days };
    let named = certificate.subject_alt_names();
    let names = named.iter().flatten().filter_map(|name| match (name.dnsname(), name.ipaddress()) {
        (Some(name), _) => Some(name.to_string()),
        (_, Some([a, b, c, d])) => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        (_, Some(bytes)) => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    });
    Ok(About { names: names.collect(), days_left })
}

/// Builds a TLS acceptor for HTTP/1 with a certificate.
///
/// # Errors
/// When the library supports no protocol version, which does not happen.
pub fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = config.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Waits for the first byte of a connection without consuming it. Returns whether it begins a TLS
/// handshake.
///
/// # Errors
/// When the connection fails.
pub async fn begins_with_handshake(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? != 1 || first[0] == HANDSHAKE_RECORD)
}

/// Answers a plain HTTP request with a redirect to the same URL with https.
///
/// # Errors
/// When the connection fails.
pub async fn send_to_https(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(MAX_HEAD);
    while head.len() < MAX_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let (status, location) = match wanted(&head) {
        Some(url) => ("308 Permanent Redirect", format!("location: {url}\r\n")),
        None => ("400 Bad Request", String::new()),
    };
    let body = "this port speaks HTTPS: write https:// in place of http://\n";
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\n{location}content-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Returns the https URL for a plain HTTP request.
fn wanted(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1).filter(|path| path.starts_with('/'))?;
    let host = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("host"))?.1.trim();
    let is_fit = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    (!host.is_empty() && is_fit(host) && is_fit(path) && !host.contains('/')).then(|| format!("https://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requests_are_sent_to_the_same_place_by_https() {
        let request = "GET /a?b=c HTTP/1.1\r\nAccept: */*\r\nHOST: video.example:8443\r\n\r\n";
        assert_eq!(wanted(request.as_bytes()).as_deref(), Some("https://video.example:8443/a?b=c"));
        for strange in [
            "",
            "GET",
            "GET http://h/ HTTP/1.1\r\nhost: h\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
            "\u{16}\u{3}",
        ] {
            assert_eq!(wanted(strange.as_bytes()), None, "{strange:?}");
        }
        assert_eq!(wanted(b"\xff\xfe"), None);
    }
}
