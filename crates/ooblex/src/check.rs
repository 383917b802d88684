//! `ooblex check`: finds configuration and system problems before the gateway is started, each with
//! its remedy.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ooblex_broker::Broker;
use ooblex_effects::{CustomEffect, Device, Effect as _};

use crate::sandbox;
use crate::start;
use ooblex_api::custom_effects::trial::{self, Report};
use ooblex_api::tls::Certificate;
use ooblex_config::Config;
use ooblex_gateway::settings::Catalogue;
use ooblex_rtc::transport::Transport;

/// Time limit for the connection to Redis.
const REACHED_WITHIN: Duration = Duration::from_secs(5);
/// Time in which announcements of workers are collected.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// Remaining validity in days below which a certificate is reported.
const SOON_DAYS: i32 = 14;

/// The result of one check.
enum Finding {
    /// No problem.
    Fine(String),
    /// The gateway would serve, but not all effects, or not all clients.
    Poor(String),
    /// The gateway would not serve.
    Wrong(String),
}

/// Prints a line for each check. Returns whether the gateway would serve.
pub fn check(config: &Config, file: Option<&Path>) -> bool {
    let checks = [
        ("effects", fine_or_wrong(effects(config))),
        ("own", own(config).unwrap_or_else(Finding::Wrong)),
        ("codecs", fine_or_wrong(codecs())),
        ("broker", broker(config)),
        ("models", models(config).unwrap_or_else(Finding::Wrong)),
        ("auth", fine_or_wrong(ooblex_api::auth::check(config))),
        ("webhooks", fine_or_wrong(ooblex_api::webhooks::check(&config.webhooks).map_err(|error| error.to_string()))),
        ("http", http(config).unwrap_or_else(Finding::Wrong)),
        ("admin", admin(config).unwrap_or_else(Finding::Wrong)),
        ("media", media(config, is_container()).unwrap_or_else(Finding::Wrong)),
        ("sandbox", sandbox(config, file)),
    ];
    for (what, finding) in &checks {
        match finding {
            Finding::Fine(found) => println!("ok    {what:8} {found}"),
            Finding::Poor(found) => println!("warn  {what:8} {found}"),
            Finding::Wrong(wrong) => println!("WRONG {what:8} {wrong}"),
        }
    }
    !checks.iter().any(|(_, finding)| matches!(finding, Finding::Wrong(_)))
}

/// Tries a folder as a custom effect and prints the results. Returns whether it would be served.
pub fn check_effect(config: &Config, folder: &Path, picture: Option<&Path>, write: Option<&Path>) -> bool {
    let tried = CustomEffect::read(folder, config.own_effects.limits()).map_err(|error| error.to_string()).and_then(|effect| {
        println!("ok    effect   {}: {}", effect.name(), effect.title());
        let model = effect.models().first().map_or("", |model| model.file.as_ref());
        let report = trial::run(config, &effect, picture).map_err(|error| error.to_string())?;
        println!("ok    model    {model} on {}, loaded in {:.0} ms", report.runtime, report.load_ms);
        let Report { typical_ms, slowest_ms, runs, .. } = report;
        println!("ok    speed    {typical_ms:.1} ms a frame, the slowest of {runs} took {slowest_ms:.1} ms");
        if !report.found.is_empty() {
            println!("ok    found    {}", report.found);
        }
        if let Some(path) = write {
            std::fs::write(path, &report.painted).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
            println!("ok    picture  {}", path.display());
        }
        Ok(())
    });
    tried.inspect_err(|reason| println!("WRONG effect   {reason}")).is_ok()
}

fn fine_or_wrong(outcome: Result<String, String>) -> Finding {
    outcome.map_or_else(Finding::Wrong, Finding::Fine)
}

fn effects(config: &Config) -> Result<String, String> {
    let catalogue = Catalogue::new(config).map_err(|problem| problem.detail)?;
    let names: Vec<_> = catalogue.effects().iter().map(|effect| effect.name().to_string()).collect();
    Ok(format!("{}; sessions that ask for none get {}", names.join(", "), config.serve.default_effect))
}

/// Checks the custom effects: whether they can be read, and whether their models pass a trial.
fn own(config: &Config) -> Result<Finding, String> {
    let catalogue = Catalogue::new(config).map_err(|problem| problem.detail)?;
    let folder = config.own_effects.folder.display();
    let set = catalogue.read_custom_effects();
    let (mut fine, mut wrong) = (Vec::new(), set.refused.into_iter().map(|refused| refused.reason).collect::<Vec<_>>());
    for effect in &set.effects {
        match trial::run(config, effect, None) {
            Ok(report) => fine.push(format!("{} ({:.1} ms a frame)", effect.name(), report.typical_ms)),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    let found = if fine.is_empty() { format!("none in {folder}") } else { format!("{} from {folder}", fine.join(", ")) };
    Ok(if wrong.is_empty() { Finding::Fine(found) } else { Finding::Poor(format!("{found}; not served: {}", wrong.join("; "))) })
}

/// Reports the sandbox restrictions that `serve` and `worker` would have on this machine.
fn sandbox(config: &Config, file: Option<&Path>) -> Finding {
    let sandbox = sandbox::probe(config, file);
    if sandbox.is_incomplete() { Finding::Poor(sandbox.to_string()) } else { Finding::Fine(sandbox.to_string()) }
}

fn codecs() -> Result<String, String> {
    if ooblex_codec::h264_is_accelerated() {
        Ok("VP8 and H.264".into())
    } else {
        Err("H.264 was built without nasm and is three times slower: install nasm and build again".into())
    }
}

/// Checks the connection to Redis, and reports which effects the workers serve.
fn broker(config: &Config) -> Finding {
    if !config.broker.is_shared() {
        return Finding::Fine("local: the workers are threads of the gateway".into());
    }
    let (catalogue, broker) = match (Catalogue::new(config), start::broker(config)) {
        (Ok(catalogue), Ok(broker)) => (catalogue, broker),
        (_, Err(error)) => return Finding::Wrong(format!("{error:#}")),
        (Err(problem), _) => return Finding::Wrong(problem.detail),
    };
    wait(REACHED_WITHIN, || broker.health().connected);
    let health = broker.health();
    if !health.connected {
        let trouble = health.trouble.unwrap_or_else(|| format!("{} is not connected after {REACHED_WITHIN:?}", config.broker.url));
        return Finding::Wrong(trouble);
    }
    // Workers announce themselves several times a second at different times, so the whole time is
    // waited.
    wait(HEARD_WITHIN, || false);
    let (capacity, incompatible_peers) = (broker.capacity(), broker.health().incompatible_peers);
    broker.close();
    let url = &config.broker.url;
    let incompatible_peers = match incompatible_peers {
        0 => String::new(),
        incompatible_peers => format!("; {incompatible_peers} processes have another version and cannot be used"),
    };
    let own = config.serve_threads();
    let analysed = catalogue.effects().into_iter().filter(|effect| effect.needs_worker()).map(|effect| {
        let others = capacity.serving.get(&effect.queue()).copied().unwrap_or(0);
        (effect.name(), others + if catalogue.serves(&effect.name()) { own } else { 0 })
    });
    let (served, unserved): (Vec<_>, Vec<_>) = analysed.partition(|(_, workers)| *workers > 0);
    let served: Vec<_> = served.iter().map(|(name, workers)| format!("{name} by {workers}")).collect();
    let unserved: Vec<_> = unserved.iter().map(|(name, _)| name.to_string()).collect();
    let served = if served.is_empty() { String::new() } else { format!("; workers serve {}", served.join(", ")) };
    if unserved.is_empty() {
        return Finding::Fine(format!("{url} is reached{served}{incompatible_peers}"));
    }
    let names = unserved.join(",");
    Finding::Poor(format!(
        "{url} is reached{served}; no worker serves {} now: start one with ooblex worker --broker … --effects {names}{incompatible_peers}",
        unserved.join(", ")
    ))
}

fn models(config: &Config) -> Result<Finding, String> {
    if config.serve_threads() == 0 {
        // The result is reported even if no worker runs here, since `ooblex worker` reads the same
        // configuration.
        let device = match config.inference.device {
            device if device == Device::default() => String::new(),
            device => format!("; the device {device} is tried where they run"),
        };
        return Ok(Finding::Fine(format!("run in other processes, so none are loaded here{device}")));
    }
    let catalogue = Catalogue::new(config).map_err(|problem| problem.detail)?;
    let worker_pool = start::worker_pool(config, &catalogue).map_err(|error| format!("{error:#}"))?;
    let runtime = &worker_pool.runtime;
    let origin = runtime.origin().map(|path| format!(" ({})", path.display())).unwrap_or_default();
    let described = format!("{}{origin}, device {}", runtime.describe(), runtime.device());
    let broker = Broker::local();
    let workers = worker_pool.start(&broker, 1).map_err(|error| error.to_string())?;
    broker.close();
    workers.into_iter().for_each(|worker| _ = worker.join());
    Ok(match runtime.warning() {
        Some(slow) => Finding::Poor(format!("all run on {described}; {slow}")),
        None => Finding::Fine(format!("all run on {described}")),
    })
}

/// Waits until `holds` returns true, at most for `most`.
fn wait(most: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + most;
    while Instant::now() < deadline && !holds() {
        sleep(Duration::from_millis(20));
    }
}

fn http(config: &Config) -> Result<Finding, String> {
    let listen = config.serve.listen;
    TcpListener::bind(listen).map_err(|error| {
        format!(
            "serve.listen: TCP {listen} cannot be opened ({error}): choose another port with --listen; if it is Ooblex that runs there, \
             ask it: ooblex check --health http://{listen}/readyz"
        )
    })?;
    let Some(files) = config.tls() else {
        return Ok(if listen.ip().is_loopback() {
            Finding::Fine(format!("TCP {listen} is free; it is reached from this machine only, such as by a proxy with HTTPS"))
        } else {
            Finding::Poor(format!(
                "TCP {listen} is free, without HTTPS: browsers on other machines give the page no camera. Put a proxy with HTTPS before \
                 it (deploy/nginx), or set serve.tls_certificate and serve.tls_key"
            ))
        });
    };
    let about = Certificate::load(files).map_err(|error| error.to_string())?.about();
    let (days, names) = (about.days_left, about.names.join(", "));
    if days < 0 {
        return Err(format!("serve.tls_certificate for {names} has expired: browsers refuse it. Renew it"));
    }
    let found = format!("TCP {listen} is free; HTTPS for {names}, for another {days} days");
    Ok(if days < SOON_DAYS { Finding::Poor(format!("{found}: renew it")) } else { Finding::Fine(found) })
}

/// Checks the admin listener, which needs no credentials.
fn admin(config: &Config) -> Result<Finding, String> {
    let Some(listen) = config.serve.admin_listen else {
        return Ok(Finding::Fine("operators' routes are on serve.listen, for programs on this machine".into()));
    };
    TcpListener::bind(listen)
        .map_err(|error| format!("serve.admin_listen: TCP {listen} cannot be opened ({error}): choose another port"))?;
    let found = format!("TCP {listen} is free; operators' routes are served there without credentials");
    Ok(match listen.ip() {
        ip if ip.is_loopback() => Finding::Fine(format!("{found}, to programs on this machine")),
        ip if ip.is_unspecified() && !is_container() => {
            Finding::Poor(format!("{found}, to every network of this machine: name an address that only operators reach"))
        }
        _ => Finding::Fine(format!("{found}: let only operators reach it")),
    })
}

fn media(config: &Config, is_container: bool) -> Result<Finding, String> {
    let transport = Transport::bind(&config.media).map_err(|error| error.to_string())?;
    let candidates = transport.candidates().current();
    let shown = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut found = format!("UDP {} is free; browsers are told {}", config.media.listen, shown(&candidates));
    if let Some(listen) = config.media.tcp_listen {
        found += &format!("; TCP {listen} is free; browsers are told {}", shown(&transport.candidates().current_tcp()));
    }
    let ips: Vec<_> = candidates.iter().map(|address| address.ip()).collect();
    let complaint = unreachable(&ips, !config.media.advertise.is_empty(), is_container);
    Ok(complaint.map_or_else(|| Finding::Fine(found.clone()), |complaint| Finding::Poor(format!("{found}; {complaint}"))))
}

/// Returns which clients cannot reach these addresses, with the remedy. `advertised` is true if the
/// operator has configured the addresses.
fn unreachable(addresses: &[IpAddr], advertised: bool, is_container: bool) -> Option<&'static str> {
    if addresses.iter().all(IpAddr::is_loopback) {
        return Some("only this machine reaches it: set media.advertise to the address by which browsers reach this machine");
    }
    if is_container && !advertised {
        return Some(
            "this is a container, and its own addresses are seldom reached from without: set media.advertise to the address of its host, \
             and publish the UDP port; if under another number, write ADDRESS:PORT",
        );
    }
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    };
    (!advertised && addresses.iter().all(is_local)).then_some(
        "all of them are private: browsers of the same network reach it. For others, set media.advertise to the public address, whose UDP \
         port is forwarded to here",
    )
}

/// Returns whether this process seems to run in a container.
fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    marks.iter().any(|mark| Path::new(mark).exists()) || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_do_not_reach_are_named_with_the_remedy() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let says = |texts: &[&str], advertised, is_container| unreachable(&ips(texts), advertised, is_container).unwrap_or_default();
        assert!(says(&["127.0.0.1"], true, false).contains("only this machine"));
        assert!(says(&["172.17.0.2", "127.0.0.1"], false, true).contains("container"));
        assert!(says(&["192.168.1.5", "127.0.0.1"], false, false).contains("private"));
        assert_eq!(says(&["192.168.1.5"], true, true), "", "an operator who names an address knows its network");
        assert_eq!(says(&["203.0.113.7", "10.0.0.4"], false, false), "");
        assert!(says(&["fd00::1"], false, false).contains("private"));
    }
}
