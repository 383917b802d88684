//! TLS for `rediss://`: reads the trusted authorities and the client certificate, and makes the
//! configuration.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::error::RedisError;
use super::options::{ClientCertificate, RedisOptions};

/// Returns the configuration of all TLS connections of a broker.
///
/// # Errors
/// When a file cannot be read or does not contain the certificates or the key.
pub(super) fn client_config(options: &RedisOptions) -> Result<Arc<ClientConfig>, RedisError> {
    let mut authorities = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            let unusable = |reason: String| RedisError::File { option: "ca_file", path: path.clone(), reason, remedy: AUTHORITY };
            for certificate in certificates(path).map_err(unusable)? {
                authorities.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
        }
        None => _ = authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let setup = |error: rustls::Error| RedisError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(setup)?;
    let builder = builder.with_root_certificates(authorities);
    Ok(Arc::new(match &options.client_certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            let file = |option, path: &Path, reason| RedisError::File { option, path: path.into(), reason, remedy: CLIENT };
            let chain = certificates(certificate).map_err(|reason| file("client_certificate", certificate, reason))?;
            let secret = private_key(key).map_err(|reason| file("client_key", key, reason))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| file("client_key", key, format!("it does not belong to broker.client_certificate: {error}")))?
        }
    }))
}

const AUTHORITY: &str = "name the PEM file of the authority that signed the certificate of Redis";
const CLIENT: &str = "name PEM files of a certificate that the authority of Redis has signed and of its key, which must not be encrypted";

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in it".into()) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| format!("there is no private key in it: {error}"))
}
