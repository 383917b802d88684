//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ooblex::config::Config;
use ooblex::reload::Reload;
use ooblex::sandbox;
use ooblex::settings::Catalogue;
use ooblex::token::TokenCommand;
use serde_json::{Map, Value};

/// Machine-learning effects on live video.
#[derive(Parser)]
#[command(version, propagate_version = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Configuration file; without it ./ooblex.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway, with workers of its own or with those that share its broker.
    Serve(ServeFlags),
    /// Run workers for the gateways that share a broker.
    Worker(WorkerFlags),
    /// Put an effect on a picture (PNG) or a video (Y4M, VP8 in IVF; anything else through the ffmpeg program).
    Apply {
        /// Effect to put on; `ooblex effects` lists them.
        #[arg(long, value_name = "NAME")]
        effect: String,
        /// Parameter of the effect; can be repeated.
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_parameter)]
        parameters: Vec<(String, Value)>,
        /// Picture or video to read.
        input: PathBuf,
        /// Picture or video to write; its ending tells the format. Sound is kept.
        output: PathBuf,
        #[command(flatten)]
        inference: InferenceFlags,
    },
    /// Measure a gateway, with real WebRTC sessions from this process.
    Bench(Box<ooblex_bench::Options>),
    /// List the effects with their parameters.
    Effects {
        /// As JSON, like GET /api/effects.
        #[arg(long)]
        json: bool,
        /// Write a picture of what each does, NAME.png, and one of them all, sheet.png, into this folder instead.
        #[arg(long, value_name = "FOLDER", conflicts_with = "json")]
        thumbnails: Option<PathBuf>,
        #[command(flatten)]
        diagnostics: DiagnosticsFlags,
    },
    /// Make effects of your own: folders with an effect.toml and an ONNX file.
    #[command(subcommand)]
    Effect(EffectCommand),
    /// Make keys and tokens that let others use the gateway.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look for what would keep the gateway from serving.
    Check {
        /// Only print the configuration that is in force.
        #[arg(long)]
        print: bool,
        /// Only ask a gateway or worker that runs, such as http://127.0.0.1:8000/healthz, whether it is well.
        #[arg(long, value_name = "URL", conflicts_with = "print")]
        health: Option<String>,
        #[command(flatten)]
        serve: ServeFlags,
    },
}

#[derive(Subcommand)]
enum EffectCommand {
    /// Look whether a folder can be served as an effect: try its model on a picture, time it, and show what it does.
    Check {
        /// Folder with an effect.toml.
        folder: PathBuf,
        /// Picture to try it on, PNG [default: one that is in the program].
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
        /// Write the picture with the effect on it here, PNG.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        #[command(flatten)]
        inference: InferenceFlags,
    },
    /// What the program calls itself to try a model.
    #[command(hide = true)]
    Try,
}

#[derive(Args)]
struct ServeFlags {
    /// Address and port of HTTP [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and UDP port of all media [default: 0.0.0.0:8000].
    #[arg(long, value_name = "ADDRESS")]
    media: Option<String>,
    /// IP address to tell browsers, for a gateway behind NAT or in a container; can be repeated.
    #[arg(long, value_name = "IP")]
    advertise: Vec<String>,
    /// Worker threads of its own: a number, or auto: one for each core, none when the broker is a Redis [default: auto].
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Effect of sessions that ask for none [default: background_blur].
    #[arg(long, value_name = "NAME")]
    effect: Option<String>,
    #[command(flatten)]
    shared: BrokerFlags,
    #[command(flatten)]
    inference: InferenceFlags,
}

#[derive(Args)]
struct WorkerFlags {
    /// Threads, each with models of its own: a number, or auto: one for each core [default: auto].
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// Address and port of /healthz, /readyz and /metrics [default: 127.0.0.1:8001].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    shared: BrokerFlags,
    #[command(flatten)]
    inference: InferenceFlags,
}

/// What gateways and workers are both told.
#[derive(Args)]
struct BrokerFlags {
    /// Through what frames reach the workers: local, or redis://…, rediss://…, redis+unix:///… [default: local].
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Effects that the workers of this process serve, with commas between [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    effects: Option<Vec<String>>,
    #[command(flatten)]
    diagnostics: DiagnosticsFlags,
}

#[derive(Args)]
struct DiagnosticsFlags {
    /// With the effects that only tests and benchmarks want.
    #[arg(long)]
    diagnostics: bool,
}

#[derive(Args)]
struct InferenceFlags {
    /// What runs the models: auto, onnx_runtime or rten [default: auto].
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// What they run on: cpu, or a device that the library of ONNX Runtime was built for, such as cuda [default: cpu].
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Folder of the model files [default: those in the program].
    #[arg(long, value_name = "FOLDER")]
    models: Option<String>,
}

fn main() -> ExitCode {
    ooblex_codec::give_back_freed_memory();
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ooblex: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Effect(EffectCommand::Try) = &cli.command {
        // Its configuration is what it is asked.
        return Ok(if ooblex::custom_effects::trial::answer() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Command::Token(command) = &cli.command {
        // Neither needs a gateway, nor its configuration.
        println!("{}", ooblex::token::token(command)?);
        return Ok(ExitCode::SUCCESS);
    }
    let flags = match &cli.command {
        Command::Serve(flags) | Command::Check { serve: flags, .. } => flags.options(),
        Command::Apply { inference, .. } | Command::Effect(EffectCommand::Check { inference, .. }) => inference.options(),
        Command::Worker(flags) => flags.options(),
        Command::Effects { diagnostics, .. } => diagnostics.options(),
        Command::Bench(_) | Command::Effect(EffectCommand::Try) | Command::Token(_) => Vec::new(),
    };
    let config = Config::load(cli.config.as_deref(), &flags)?;
    // Before the first thread is started, because threads that run already would stay as they are.
    let sandbox = matches!(cli.command, Command::Serve(_) | Command::Worker(_)).then(|| sandbox::enter(&config, cli.config.as_deref()));
    let logs = ooblex::logs::start(&config.log)?;
    match sandbox {
        Some(sandbox) if sandbox.is_incomplete() => tracing::warn!("the sandbox is incomplete: {sandbox}"),
        Some(sandbox) => tracing::info!("sandbox: {sandbox}"),
        None => {}
    }
    let file = cli.config.clone();
    let reload = Reload::new(logs, move || Config::load(file.as_deref(), &flags));
    match cli.command {
        Command::Serve(_) => ooblex::serve::serve(config, &reload)?,
        Command::Worker(_) => ooblex::worker::worker(&config, &reload)?,
        Command::Apply { effect, parameters, input, output, .. } => {
            let parameters = Value::Object(Map::from_iter(parameters));
            ooblex::apply::apply(&config, &effect, &parameters, &input, &output)?;
        }
        Command::Bench(options) => ooblex_bench::bench(&options)?,
        Command::Effects { thumbnails: Some(folder), .. } => ooblex::thumbnails::write(&config, &folder)?,
        Command::Effects { json, .. } => list_effects(&config, json)?,
        Command::Effect(EffectCommand::Check { folder, picture, write, .. }) => {
            if !ooblex::check::check_effect(&config, &folder, picture.as_deref(), write.as_deref()) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Effect(EffectCommand::Try) | Command::Token(_) => {}
        Command::Check { print: true, .. } => println!("{}", serde_json::to_string_pretty(&config)?),
        Command::Check { health: Some(url), .. } => match ooblex::health::health(&url) {
            Ok(answer) => println!("{answer}"),
            Err(error) => anyhow::bail!(error),
        },
        Command::Check { .. } => {
            if !ooblex::check::check(&config, cli.config.as_deref()) {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list_effects(config: &Config, json: bool) -> anyhow::Result<()> {
    let catalogue = Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&catalogue.describe())?);
        return Ok(());
    }
    for effect in catalogue.effects() {
        println!("{}  {}", effect.name(), effect.description());
        for parameter in effect.parameters() {
            println!("    {:<12} {}  {}", parameter.name, parameter.kind, parameter.description);
        }
    }
    Ok(())
}

impl ServeFlags {
    fn options(&self) -> Vec<(&'static str, config::Value)> {
        let mut options = self.inference.options();
        options.extend(self.shared.options());
        options.extend(self.listen.clone().map(|v| ("serve.listen", v.into())));
        options.extend(self.media.clone().map(|v| ("media.listen", v.into())));
        options.extend((!self.advertise.is_empty()).then(|| ("media.advertise", self.advertise.clone().into())));
        options.extend(self.workers.clone().map(|v| ("serve.workers", v.into())));
        options.extend(self.effect.clone().map(|v| ("serve.default_effect", v.into())));
        options
    }
}

impl WorkerFlags {
    fn options(&self) -> Vec<(&'static str, config::Value)> {
        let mut options = self.inference.options();
        options.extend(self.shared.options());
        options.extend(self.listen.clone().map(|v| ("worker.listen", v.into())));
        options.extend(self.threads.clone().map(|v| ("worker.threads", v.into())));
        options
    }
}

impl BrokerFlags {
    fn options(&self) -> Vec<(&'static str, config::Value)> {
        let mut options = self.diagnostics.options();
        options.extend(self.broker.clone().map(|v| ("broker.url", v.into())));
        options.extend(self.effects.clone().map(|v| ("worker.effects", v.into())));
        options
    }
}

impl DiagnosticsFlags {
    fn options(&self) -> Vec<(&'static str, config::Value)> {
        self.diagnostics.then(|| ("diagnostics.effects", true.into())).into_iter().collect()
    }
}

impl InferenceFlags {
    fn options(&self) -> Vec<(&'static str, config::Value)> {
        let backend = self.backend.clone().map(|v| ("inference.backend", v.into()));
        let device = self.device.clone().map(|v| ("inference.device", v.into()));
        let models = self.models.clone().map(|v| ("inference.models", v.into()));
        backend.into_iter().chain(device).chain(models).collect()
    }
}

/// `strength=0.7` is a number, `style=ink` a word.
fn parse_parameter(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}
