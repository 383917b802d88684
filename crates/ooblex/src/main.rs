//! Command line of the program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ooblex::reload::Reload;
use ooblex::sandbox;
use ooblex::token::TokenCommand;
use ooblex_config::Config;
use ooblex_gateway::settings::Catalogue;
use serde_json::Value;

/// Machine-learning effects on live video.
#[derive(Parser)]
#[command(version, propagate_version = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (TOML) [default: ./ooblex.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the WebRTC gateway, with its own worker threads or with `ooblex worker` processes on a
    /// shared broker.
    Serve(ServeFlags),
    /// Run inference workers for the gateways that share a broker (Redis).
    Worker(WorkerFlags),
    /// Apply an effect to a picture (PNG) or a video (Y4M, VP8 in IVF; other formats through the
    /// ffmpeg program).
    Apply {
        /// Effect to apply; `ooblex effects` lists them.
        #[arg(long, value_name = "NAME")]
        effect: String,
        /// Parameter of the effect; can be repeated.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        parameters: Vec<ooblex_bench::Parameter>,
        /// Input picture or video.
        input: PathBuf,
        /// Output picture or video; its file extension selects the format. Sound is kept.
        output: PathBuf,
        #[command(flatten)]
        inference: InferenceFlags,
    },
    /// Benchmark a gateway with real WebRTC sessions from this process.
    Bench(Box<ooblex_bench::Options>),
    /// List the effects with their parameters.
    Effects {
        /// Print JSON, as GET /api/effects does.
        #[arg(long)]
        json: bool,
        /// Instead write a thumbnail of each effect (NAME.png) and an overview (sheet.png) into
        /// this folder.
        #[arg(long, value_name = "FOLDER", conflicts_with = "json")]
        thumbnails: Option<PathBuf>,
        #[command(flatten)]
        diagnostics: DiagnosticsFlags,
    },
    /// Develop custom effects: folders with an effect.toml and an ONNX model.
    #[command(subcommand)]
    Effect(EffectCommand),
    /// Create keys and tokens (JWT) for authentication.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check the configuration and this machine for problems before the gateway is started.
    Check {
        /// Only print the effective configuration.
        #[arg(long)]
        print: bool,
        /// Only query the health of a running gateway or worker, such as
        /// http://127.0.0.1:8000/healthz.
        #[arg(long, value_name = "URL", conflicts_with = "print")]
        health: Option<String>,
        #[command(flatten)]
        serve: ServeFlags,
    },
}

#[derive(Subcommand)]
enum EffectCommand {
    /// Check a custom effect: run its model on a picture, measure its speed, and show its output.
    Check {
        /// Folder with an effect.toml.
        folder: PathBuf,
        /// Picture to try the model on, PNG [default: a built-in sample].
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
        /// Write the picture with the effect applied to this file, PNG.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        #[command(flatten)]
        inference: InferenceFlags,
    },
    /// Run the trial of a model in a child process. The program starts this command itself.
    #[command(hide = true)]
    Try,
}

#[derive(Args)]
struct ServeFlags {
    /// Address and port of HTTP [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and UDP port of WebRTC media [default: 0.0.0.0:8000].
    #[arg(long, value_name = "ADDRESS")]
    media: Option<String>,
    /// IP address or host name to advertise to browsers (ICE candidate), with the port if another one
    /// is published, for a gateway behind NAT or in a container; can be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Vec<String>,
    /// Number of worker threads, or auto: one per core, none with a Redis broker [default: auto].
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
    /// Number of worker threads, each with its own models, or auto: one per core [default: auto].
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

/// Options of both gateways and workers.
#[derive(Args)]
struct BrokerFlags {
    /// Broker between gateways and workers: local, or redis://…, rediss://…, redis+unix:///…
    /// [default: local].
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Effects that the workers of this process serve, comma-separated [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    effects: Option<Vec<String>>,
    #[command(flatten)]
    diagnostics: DiagnosticsFlags,
}

#[derive(Args)]
struct DiagnosticsFlags {
    /// Enable the diagnostics effects, which only tests and benchmarks need.
    #[arg(long)]
    diagnostics: bool,
}

#[derive(Args)]
struct InferenceFlags {
    /// Inference backend: auto, onnx_runtime or rten [default: auto].
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Inference device: cpu, or a device that the ONNX Runtime library was built for, such as cuda
    /// [default: cpu].
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Folder of the model files [default: the built-in models].
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
        // The child gets its configuration in the request on standard input.
        return Ok(if ooblex_api::custom_effects::trial::answer() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Command::Token(command) = &cli.command {
        // This command needs neither a gateway nor its configuration.
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
    let mut config = Config::load(cli.config.as_deref(), &flags)?;
    if matches!(cli.command, Command::Worker(_)) {
        // A worker records nothing, so its sandbox lets it write nothing.
        config.recordings = ooblex_config::Recordings::default();
    }
    // The sandbox applies only to threads that are started after it, so it comes first.
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
            let parameters = Value::Object(parameters.into_iter().map(|parameter| (parameter.name, parameter.value)).collect());
            ooblex::apply::apply(&config, &effect, &parameters, &input, &output)?;
        }
        Command::Bench(options) => ooblex_bench::bench(&options)?,
        Command::Effects { thumbnails: Some(folder), .. } => ooblex_api::thumbnails::write(&config, &folder)?,
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
