//! A layer between the WebRTC library and its cryptography, which observes events that the library
//! does not report.
//!
//! It counts authenticated packets, because only those show that an address is the browser's, and
//! only those spend the session's rate limit. It also counts the SCTP streams of a session. The
//! results are kept per thread: sessions run one after another on the media thread, so a caller
//! always asks about the session that has just run.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use str0m::crypto::dtls::{DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion};
use str0m::crypto::{
    AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80Cipher, CryptoError, CryptoProvider, SrtpProvider, SupportedAeadAes128Gcm,
    SupportedAeadAes256Gcm, SupportedAes128CmSha1_80,
};

use crate::sctp::Streams;

/// Data channels of a session, including those that are only streams.
const MAX_CHANNELS: usize = 8;

thread_local! {
    static AUTHENTICATED: Cell<u64> = const { Cell::new(0) };
    static HAS_TOO_MANY_CHANNELS: Cell<bool> = const { Cell::new(false) };
}

/// Returns the number of packets that were authenticated on this thread so far: SRTP, SRTCP, and
/// records of DTLS.
pub(crate) fn authenticated() -> u64 {
    AUTHENTICATED.get()
}

/// Returns whether a session has used too many data channels on this thread since the last call.
pub(crate) fn take_too_many_channels() -> bool {
    HAS_TOO_MANY_CHANNELS.take()
}

fn note_authenticated() {
    AUTHENTICATED.set(AUTHENTICATED.get() + 1);
}

static INNER: LazyLock<CryptoProvider> = LazyLock::new(str0m::crypto::from_feature_flags);

/// Installs the library's own cryptography for the process, before the first [`crate::negotiate`].
pub fn install_cryptography() {
    INNER.clone().install_process_default();
}

/// Returns the library's own cryptography with observers.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static WATCHED: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(CryptoProvider { srtp_provider: &Watched, dtls_provider: &Watched, ..INNER.clone() }));
    WATCHED.clone()
}

#[derive(Debug)]
struct Watched;

/// A cipher that counts what it decrypts.
#[derive(Debug)]
struct Decryption<T>(T);

impl SrtpProvider for Watched {
    fn aes_128_cm_sha1_80(&self) -> &'static dyn SupportedAes128CmSha1_80 {
        &Watched
    }

    fn aead_aes_128_gcm(&self) -> &'static dyn SupportedAeadAes128Gcm {
        &Watched
    }

    fn aead_aes_256_gcm(&self) -> &'static dyn SupportedAeadAes256Gcm {
        &Watched
    }

    fn srtp_aes_128_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        INNER.srtp_provider.srtp_aes_128_ecb_round(key, input, output);
    }

    fn srtp_aes_256_ecb_round(&self, key: &[u8], input: &[u8], output: &mut [u8]) {
        INNER.srtp_provider.srtp_aes_256_ecb_round(key, input, output);
    }
}

impl SupportedAes128CmSha1_80 for Watched {
    fn create_cipher(&self, key: [u8; 16], encrypt: bool) -> Box<dyn Aes128CmSha1_80Cipher> {
        let cipher = INNER.srtp_provider.aes_128_cm_sha1_80().create_cipher(key, encrypt);
        if encrypt { cipher } else { Box::new(Decryption(cipher)) }
    }
}

impl SupportedAeadAes128Gcm for Watched {
    fn create_cipher(&self, key: [u8; 16], encrypt: bool) -> Box<dyn AeadAes128GcmCipher> {
        let cipher = INNER.srtp_provider.aead_aes_128_gcm().create_cipher(key, encrypt);
        if encrypt { cipher } else { Box::new(Decryption(cipher)) }
    }
}

impl SupportedAeadAes256Gcm for Watched {
    fn create_cipher(&self, key: [u8; 32], encrypt: bool) -> Box<dyn AeadAes256GcmCipher> {
        let cipher = INNER.srtp_provider.aead_aes_256_gcm().create_cipher(key, encrypt);
        if encrypt { cipher } else { Box::new(Decryption(cipher)) }
    }
}

impl Aes128CmSha1_80Cipher for Decryption<Box<dyn Aes128CmSha1_80Cipher>> {
    fn encrypt(&mut self, iv: &[u8; 16], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        self.0.encrypt(iv, input, output)
    }

    /// The library has checked the authentication tag before it comes here.
    fn decrypt(&mut self, iv: &[u8; 16], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        self.0.decrypt(iv, input, output).inspect(|()| note_authenticated())
    }
}

impl AeadAes128GcmCipher for Decryption<Box<dyn AeadAes128GcmCipher>> {
    fn encrypt(&mut self, iv: &[u8; 12], aad: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        self.0.encrypt(iv, aad, input, output)
    }

    fn decrypt(&mut self, iv: &[u8; 12], aads: &[&[u8]], input: &[u8], output: &mut [u8]) -> Result<usize, CryptoError> {
        self.0.decrypt(iv, aads, input, output).inspect(|_| note_authenticated())
    }
}

impl AeadAes256GcmCipher for Decryption<Box<dyn AeadAes256GcmCipher>> {
    fn encrypt(&mut self, iv: &[u8; 12], aad: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        self.0.encrypt(iv, aad, input, output)
    }

    fn decrypt(&mut self, iv: &[u8; 12], aads: &[&[u8]], input: &[u8], output: &mut [u8]) -> Result<usize, CryptoError> {
        self.0.decrypt(iv, aads, input, output).inspect(|_| note_authenticated())
    }
}

impl DtlsProvider for Watched {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        INNER.dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = INNER.dtls_provider.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(WatchedDtls { inner, streams: Streams::new(MAX_CHANNELS) }))
    }
}

#[derive(Debug)]
struct WatchedDtls {
    inner: Box<dyn DtlsInstance>,
    streams: Streams,
}

impl DtlsInstance for WatchedDtls {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.inner.poll_output(buf) {
            DtlsOutput::ApplicationData(data) => {
                note_authenticated();
                if self.streams.takes(data) {
                    return DtlsOutput::ApplicationData(data);
                }
                HAS_TOO_MANY_CHANNELS.set(true);
                // The library ignores an empty packet.
                DtlsOutput::ApplicationData(&[])
            }
            output => {
                if matches!(output, DtlsOutput::Connected) {
                    note_authenticated();
                }
                output
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
