//! `ooblex check`: what would keep the gateway from serving, found before it is started, each with its mend.

use std::net::TcpListener;

use ooblex_broker::Broker;

use crate::config::Config;
use crate::serve::inference;
use crate::settings::Catalogue;
use crate::transport::Transport;
use crate::workers::Workshop;

/// Prints a line for everything that was looked at. Returns whether the gateway would serve.
pub fn check(config: &Config) -> bool {
    let checks =
        [("effects", effects(config)), ("codecs", codecs()), ("models", models(config)), ("http", http(config)), ("media", media(config))];
    for (what, outcome) in &checks {
        match outcome {
            Ok(found) => println!("ok    {what:8} {found}"),
            Err(wrong) => println!("WRONG {what:8} {wrong}"),
        }
    }
    checks.iter().all(|(_, outcome)| outcome.is_ok())
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

fn models(config: &Config) -> Result<String, String> {
    let (runtime, store) = inference(&config.inference).map_err(|error| format!("{error:#}"))?;
    let slow = runtime.warning().map(|warning| format!("; {warning}")).unwrap_or_default();
    let origin = runtime.origin().map(|path| format!(" ({})", path.display())).unwrap_or_default();
    let described = format!("{}{origin}", runtime.describe());
    let workshop = Workshop { runtime: runtime.into(), store: store.into(), effects: ooblex_effects::effects() };
    let broker = Broker::local();
    let workers = workshop.start(&broker, 1).map_err(|error| error.to_string())?;
    broker.close();
    workers.into_iter().for_each(|worker| _ = worker.join());
    Ok(format!("all run on {described}{slow}"))
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
