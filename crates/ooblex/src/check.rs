//! `ooblex check`: what would keep the gateway from serving, found before it is started, each with its mend.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ooblex_broker::Broker;
use ooblex_effects::Device;

use crate::config::Config;
use crate::settings::Catalogue;
use crate::start;
use crate::transport::Transport;

/// Redis has this long to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(5);
/// Workers have this long to be heard.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// What was found.
enum Finding {
    /// As it should be.
    Fine(String),
    /// The gateway serves, and not all that it could.
    Poor(String),
    /// The gateway would not serve.
    Wrong(String),
}

/// Prints a line for everything that was looked at. Returns whether the gateway would serve.
pub fn check(config: &Config) -> bool {
    let checks = [
        ("effects", fine_or_wrong(effects(config))),
        ("codecs", fine_or_wrong(codecs())),
        ("broker", broker(config)),
        ("models", fine_or_wrong(models(config))),
        ("http", fine_or_wrong(http(config))),
        ("media", fine_or_wrong(media(config))),
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

fn fine_or_wrong(outcome: Result<String, String>) -> Finding {
    outcome.map_or_else(Finding::Wrong, Finding::Fine)
}

fn effects(config: &Config) -> Result<String, String> {
    let catalogue = Catalogue::new(config).map_err(|problem| problem.detail)?;
    let names: Vec<_> = catalogue.effects().iter().map(|effect| effect.name().to_string()).collect();
    Ok(format!("{}; sessions that ask for none get {}", names.join(", "), config.serve.default_effect))
}

fn codecs() -> Result<String, String> {
    if ooblex_codec::h264_is_accelerated() {
        Ok("VP8 and H.264".into())
    } else {
        Err("H.264 was built without nasm and is three times slower: install nasm and build again".into())
    }
}

/// Whether Redis is reached, and what the workers that share it serve.
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
    // They announce themselves several times a second, each at its own moment, so all of that time is waited.
    wait(HEARD_WITHIN, || false);
    let (capacity, strangers) = (broker.capacity(), broker.health().strangers);
    broker.close();
    let url = &config.broker.url;
    let strangers = match strangers {
        0 => String::new(),
        strangers => format!("; {strangers} processes there are of another version, which can not be used"),
    };
    let own = config.serve_threads();
    let workers = |name: &_| capacity.serving.get(name).copied().unwrap_or(0) + if catalogue.serves(name) { own } else { 0 };
    let (served, unserved): (Vec<_>, Vec<_>) = catalogue.analysed().into_iter().partition(|name| workers(name) > 0);
    let served: Vec<_> = served.iter().map(|name| format!("{name} by {}", workers(name))).collect();
    let unserved: Vec<_> = unserved.iter().map(ToString::to_string).collect();
    let served = if served.is_empty() { String::new() } else { format!("; workers serve {}", served.join(", ")) };
    if unserved.is_empty() {
        return Finding::Fine(format!("{url} is reached{served}{strangers}"));
    }
    let names = unserved.join(",");
    Finding::Poor(format!(
        "{url} is reached{served}; no worker serves {} now: start one with ooblex worker --broker … --effects {names}{strangers}",
        unserved.join(", ")
    ))
}

fn models(config: &Config) -> Result<String, String> {
    if config.serve_threads() == 0 {
        // It is told all the same, since `ooblex worker` reads the same configuration.
        let device = match config.inference.device {
            device if device == Device::default() => String::new(),
            device => format!("; the device {device} is tried where they run"),
        };
        return Ok(format!("run in other processes, so none are loaded here{device}"));
    }
    let catalogue = Catalogue::new(config).map_err(|problem| problem.detail)?;
    let workshop = start::workshop(config, &catalogue).map_err(|error| format!("{error:#}"))?;
    let runtime = &workshop.runtime;
    let slow = runtime.warning().map(|warning| format!("; {warning}")).unwrap_or_default();
    let origin = runtime.origin().map(|path| format!(" ({})", path.display())).unwrap_or_default();
    let described = format!("{}{origin}, device {}", runtime.describe(), runtime.device());
    let broker = Broker::local();
    let workers = workshop.start(&broker, 1).map_err(|error| error.to_string())?;
    broker.close();
    workers.into_iter().for_each(|worker| _ = worker.join());
    Ok(format!("all run on {described}{slow}"))
}

/// Waits until something holds, or for as long as it may take.
fn wait(most: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + most;
    while Instant::now() < deadline && !holds() {
        sleep(Duration::from_millis(20));
    }
}

fn http(config: &Config) -> Result<String, String> {
    let listen = config.serve.listen;
    TcpListener::bind(listen)
        .map(|_| format!("TCP {listen} is free"))
        .map_err(|error| format!("serve.listen: TCP {listen} can not be opened ({error}): choose another port with --listen"))
}

fn media(config: &Config) -> Result<String, String> {
    let transport = Transport::bind(&config.media).map_err(|error| error.to_string())?;
    let addresses: Vec<_> = transport.candidates().iter().map(ToString::to_string).collect();
    let private = transport.candidates().iter().all(|address| address.ip().is_loopback());
    let reach = if private { "; only this machine reaches it: set media.advertise" } else { "" };
    Ok(format!("UDP {} is free; browsers are told {}{reach}", config.media.listen, addresses.join(", ")))
}
