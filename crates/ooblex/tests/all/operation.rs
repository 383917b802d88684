//! Tests of operation: HTTPS with certificate rotation, SIGHUP, machine-readable logs, health
//! checks, and `ooblex check`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{Gateway, WITHIN, temporary_folder};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslStream};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use rustix::process::Signal;
use serde_json::Value;

/// A folder with a certificate and its key.
struct Issued {
    folder: PathBuf,
}

impl Issued {
    fn new() -> Self {
        let issued = Self { folder: temporary_folder() };
        issued.issue(1, 90);
        issued
    }

    /// Writes a certificate for localhost that expires in `days` days, and its key.
    fn issue(&self, serial: u32, days: i64) {
        let key = PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "test").unwrap();
        let (name, now) = (name.build(), std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64);
        let mut certificate = X509::builder().unwrap();
        certificate.set_version(2).unwrap();
        certificate.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).unwrap();
        certificate.set_subject_name(&name).unwrap();
        certificate.set_issuer_name(&name).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::from_unix(now - 200 * 86_400).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::from_unix(now + days * 86_400 + 3600).unwrap()).unwrap();
        let names = SubjectAlternativeName::new().dns("localhost").ip("127.0.0.1").build(&certificate.x509v3_context(None, None)).unwrap();
        certificate.append_extension(names).unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        std::fs::write(self.key(), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        std::fs::write(self.certificate(), certificate.build().to_pem().unwrap()).unwrap();
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("fullchain.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("privkey.pem")
    }

    fn options(&self) -> String {
        format!("[serve]\ntls_certificate = {:?}\ntls_key = {:?}\n", self.certificate(), self.key())
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_gateway_speaks_https_and_sends_plain_http_there() {
    let issued = Issued::new();
    let gateway = Gateway::start(&issued.options(), &["--workers", "1", "--effects", "delay", "--diagnostics"]);
    assert!(gateway.url.starts_with("https://127.0.0.1:"), "{}", gateway.url);
    assert!(ask(&mut connect(&gateway, &issued.certificate()), "/").contains("<title>"));
    let plain = |request: &str| {
        let mut stream = TcpStream::connect(authority(&gateway)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let sent = plain("GET /api/effects?x=1 HTTP/1.1\r\nHost: video.example:8000\r\n\r\n");
    assert!(sent.starts_with("HTTP/1.1 308 ") && sent.contains("location: https://video.example:8000/api/effects?x=1\r\n"), "{sent}");
    assert!(plain("+PING\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(plain("GET / HTTP/1.0\r\n\r\n").ends_with("this port speaks HTTPS: write https:// in place of http://\n"));
    let well = ooblex(&["check", "--health", &format!("{}/healthz", gateway.url)]);
    assert!(well.status.success() && said(&well).contains("alive"), "{}", said(&well));
}

#[test]
fn a_new_certificate_is_taken_up_while_connections_stand() {
    let issued = Issued::new();
    let gateway = Gateway::start(&issued.options(), &["--workers", "1", "--effects", "delay", "--diagnostics"]);
    let mut standing = connect(&gateway, &issued.certificate());
    assert_eq!(serial(&standing), 1);
    assert!(ask(&mut standing, "/metrics").contains("ooblex_certificate_days_left 90.0"));

    issued.issue(2, 30);
    gateway.signal(Signal::HUP);
    gateway.wait("the new certificate", |gateway| gateway.said().contains("the certificate was read again"));
    assert_eq!(serial(&connect(&gateway, &issued.certificate())), 2);
    assert!(ask(&mut standing, "/metrics").contains("ooblex_certificate_days_left 30.0"), "the old connection goes on");

    let last = issued.folder.join("last.pem");
    std::fs::copy(issued.certificate(), &last).unwrap();
    std::fs::write(issued.certificate(), "half a certificate").unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait("a complaint", |gateway| gateway.said().contains("stays in use"));
    assert_eq!(serial(&connect(&gateway, &last)), 2);
}

#[test]
fn certificates_that_can_not_be_used_are_refused_with_the_remedy() {
    let (issued, other) = (Issued::new(), Issued::new());
    let refuse = |certificate: &Path, key: &Path| {
        let output = check(&[("SERVE__TLS_CERTIFICATE", certificate.to_str().unwrap()), ("SERVE__TLS_KEY", key.to_str().unwrap())]);
        assert!(!output.status.success());
        said(&output)
    };
    assert!(refuse(&issued.certificate(), &other.key()).contains("does not belong to the certificate"));
    assert!(refuse(&issued.folder.join("none.pem"), &issued.key()).contains("serve.tls_certificate"));
    assert!(refuse(&issued.certificate(), &issued.certificate()).contains("serve.tls_key"));
    assert!(refuse(&issued.key(), &issued.key()).contains("it holds no certificate"));
    issued.issue(3, -5);
    assert!(refuse(&issued.certificate(), &issued.key()).contains("localhost, 127.0.0.1 has expired"));
    issued.issue(4, 5);
    let soon =
        check(&[("SERVE__TLS_CERTIFICATE", issued.certificate().to_str().unwrap()), ("SERVE__TLS_KEY", issued.key().to_str().unwrap())]);
    assert!(soon.status.success() && said(&soon).contains("warn  http") && said(&soon).contains("another 5 days"), "{}", said(&soon));
}

#[test]
fn check_tells_what_others_would_not_reach() {
    let open = said(&check(&[("SERVE__LISTEN", "0.0.0.0:0"), ("AUTH__MODE", "none")]));
    assert!(open.contains("warn  http") && open.contains("without HTTPS"), "{open}");
    let admin = |listen| said(&check(&[("SERVE__ADMIN_LISTEN", listen)]));
    assert!(admin("127.0.0.1:0").contains("ok    admin") && admin("127.0.0.1:0").contains("without credentials"));
    let undecided = check(&[("SERVE__LISTEN", "0.0.0.0:0")]);
    assert!(!undecided.status.success() && said(&undecided).contains("WRONG auth"), "{}", said(&undecided));
    let own = said(&check(&[("MEDIA__LISTEN", "127.0.0.1:0")]));
    assert!(own.contains("warn  media") && own.contains("set media.advertise"), "{own}");
    let told = said(&check(&[("MEDIA__ADVERTISE", "203.0.113.7")]));
    assert!(told.contains("ok    media") && told.contains("203.0.113.7"), "{told}");
    let slow = said(&check(&[("INFERENCE__BACKEND", "rten"), ("SERVE__WORKERS", "1")]));
    assert!(slow.contains("rten") && slow.contains("(built in)"), "{slow}");
    let away = check(&[("BROKER__URL", "redis://127.0.0.1:1")]);
    assert!(!away.status.success() && said(&away).contains("WRONG broker") && said(&away).contains("cannot be reached"), "{}", said(&away));
}

#[test]
fn health_says_what_is_wrong_and_fails() {
    let gateway = Gateway::start("", &["--broker", "redis://127.0.0.1:1"]);
    let health = |path: &str| ooblex(&["check", "--health", &format!("{}{path}", gateway.url)]);
    assert!(health("/healthz").status.success());
    let unready = health("/readyz");
    assert!(!unready.status.success() && said(&unready).contains("status 503") && said(&unready).contains("Redis"), "{}", said(&unready));
    let nobody = ooblex(&["check", "--health", "http://127.0.0.1:1/healthz"]);
    assert!(!nobody.status.success() && said(&nobody).contains("does not answer"));
}

#[test]
fn at_sighup_the_filter_changes_and_what_needs_a_new_start_is_named() {
    let folder = temporary_folder();
    let file = folder.join("reloaded.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[log]\nformat = \"json\"\n");
    let flags = ["--workers", "1", "--effects", "delay", "--diagnostics", "--config", file.to_str().unwrap()];
    let gateway = Gateway::start("", &flags);
    write("[log]\nformat = \"json\"\nfilter = \"ooblex=debug\"\n[limits]\nsessions = 3\n");
    gateway.signal(Signal::HUP);
    gateway.wait("a word on the new file", |gateway| gateway.said().contains("limits.sessions"));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build().new_agent();
    agent.post(format!("{}/offer", gateway.url)).header("content-type", "application/json").send("no JSON").unwrap();
    gateway.wait("a line that only debug shows", |gateway| gateway.said().contains("offer refused"));
    write("[log]\nfilter = \"a==b\"\n");
    gateway.signal(Signal::HUP);
    gateway.wait("a complaint", |gateway| gateway.said().contains("stays in force"));
    for line in gateway.said().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line} is no JSON: {error}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn authority(gateway: &Gateway) -> &str {
    gateway.url.split_once("://").unwrap().1
}

fn connect(gateway: &Gateway, authority_of: &Path) -> SslStream<TcpStream> {
    let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
    connector.set_ca_file(authority_of).unwrap();
    let stream = TcpStream::connect(authority(gateway)).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    connector.build().connect("localhost", stream).unwrap()
}

fn serial(stream: &SslStream<TcpStream>) -> u32 {
    let serial = stream.ssl().peer_certificate().unwrap().serial_number().to_bn().unwrap();
    serial.to_dec_str().unwrap().parse().unwrap()
}

/// Sends a request on a persistent connection, and reads the answer by its content length.
fn ask(stream: &mut SslStream<TcpStream>, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the connection ended within {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
        if body.len() >= wanted {
            return text.into_owned();
        }
    }
}

/// Runs `ooblex check` on free ports, with these options in the environment.
fn check(options: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    command
        .arg("check")
        .env("OOBLEX_SERVE__LISTEN", "127.0.0.1:0")
        .env("OOBLEX_MEDIA__LISTEN", "0.0.0.0:0")
        .env("OOBLEX_SERVE__WORKERS", "auto");
    command.env("OOBLEX_WORKER__EFFECTS", "delay").env("OOBLEX_DIAGNOSTICS__EFFECTS", "true").current_dir(std::env::temp_dir());
    command.envs(options.iter().map(|(name, value)| (format!("OOBLEX_{name}"), *value))).output().unwrap()
}

fn ooblex(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ooblex")).args(arguments).current_dir(std::env::temp_dir()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
