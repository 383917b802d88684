//! `ooblex token`: creates keys for `[[auth.keys]]`, and signs JWTs with a shared secret for tests
//! and small deployments.
//!
//! Secrets are read from files, never from the command line, which all users of the machine can
//! see.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use ooblex_api::auth::{AuthError, jwt, keys};
use ooblex_config::Secret;

/// The commands of `ooblex token`.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Create a key, and print the lines of ooblex.toml that accept it.
    Key {
        /// Role of the key's holder.
        #[arg(long, value_enum)]
        role: RoleName,
        /// Name of the key in logs [default: the role and a number].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Sign a token (JWT) with the shared secret of auth.jwt.secret_file.
    Sign(Box<Claims>),
}

/// Roles of keys.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Begin sessions.
    Publish,
    /// Watch sessions.
    View,
    /// Everything, including the operator routes.
    Admin,
}

/// The claims of a token.
#[derive(Debug, Clone, Args)]
pub struct Claims {
    /// File that holds the shared secret.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Signature algorithm: HS256, HS384 or HS512.
    #[arg(long, value_name = "NAME", default_value = "HS256")]
    algorithm: String,
    /// Rooms that the holder may publish a camera to, such as '*'; can be repeated.
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// Rooms that the holder may watch; can be repeated.
    #[arg(long, value_name = "PATTERN")]
    view: Vec<String>,
    /// Grant operator rights.
    #[arg(long)]
    admin: bool,
    /// Allowed effects of the holder's sessions, comma-separated [default: all]. Unless none is
    /// listed, the effect cannot be removed.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    effects: Option<Vec<String>>,
    /// Allowed values of a parameter, as JSON: a value, a list, or {"min": 0.5, "max": 1}; can be
    /// repeated.
    #[arg(long = "param", value_name = "EFFECT.NAME=JSON", value_parser = parse_param)]
    params: Vec<AllowedValue>,
    /// Largest frame in thousands of pixels.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_kilopixels: Option<u32>,
    /// Record the rooms that the holder publishes to.
    #[arg(long)]
    record: bool,
    /// Lifetime of the token in minutes.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=5_256_000))]
    minutes: u64,
    #[command(flatten)]
    names: Names,
}

/// The claims that name who is involved.
#[derive(Debug, Clone, Args)]
struct Names {
    /// Issuer (iss).
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Audience (aud).
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Subject (sub).
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
}

#[derive(Debug, Clone)]
struct AllowedValue {
    effect: String,
    parameter: String,
    /// A value, a list of values, or a range.
    value: Value,
}

/// Executes the command. Returns the text to print.
///
/// # Errors
/// When the secret cannot be read, or is too short.
pub fn token(command: &TokenCommand) -> Result<String, AuthError> {
    match command {
        TokenCommand::Key { role, name } => Ok(key(*role, name.clone())),
        TokenCommand::Sign(claims) => claims.sign(),
    }
}

fn key(role: RoleName, name: Option<String>) -> String {
    let role = match role {
        RoleName::Publish => "publish",
        RoleName::View => "view",
        RoleName::Admin => "admin",
    };
    let key = keys::generate();
    let hash = keys::hash(&key);
    let name = Value::String(name.unwrap_or_else(|| format!("{role}-{}", keys::random_hex::<2>())));
    format!(
        "{key}\n\n# That is the key, which is shown once: give it to who shall have it. These lines let it in, in ooblex.toml; in the file of\n# \
         auth.keys_file the first is [[keys]].\n[[auth.keys]]\nname = {name}\nrole = \"{role}\"\nhash = \"{hash}\""
    )
}

impl Claims {
    fn sign(&self) -> Result<String, AuthError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut claims = Map::new();
        let mut set = |name: &str, value: Option<Value>| _ = value.map(|value| claims.insert(name.into(), value));
        set("iat", Some(now.into()));
        set("exp", Some((now + self.minutes * 60).into()));
        set("publish", (!self.publish.is_empty()).then(|| json!(self.publish)));
        set("view", (!self.view.is_empty()).then(|| json!(self.view)));
        set("admin", self.admin.then_some(true.into()));
        set("effects", self.effects.as_ref().map(|effects| json!(effects)));
        set("max_kilopixels", self.max_kilopixels.map(Value::from));
        set("record", self.record.then_some(true.into()));
        set("iss", self.names.issuer.clone().map(Value::from));
        set("aud", self.names.audience.clone().map(Value::from));
        set("sub", self.names.subject.clone().map(Value::from));
        let mut params = Map::new();
        for AllowedValue { effect, parameter, value } in &self.params {
            let of_effect = params.entry(effect.clone()).or_insert_with(|| json!({}));
            of_effect[parameter] = value.clone();
        }
        set("params", (!params.is_empty()).then(|| params.into()));
        let secret = Secret::read(&self.secret_file, "--secret-file")?;
        jwt::sign(&Value::Object(claims), &secret, Some(&self.algorithm))
    }
}

/// Parses EFFECT.PARAMETER=JSON, such as `background_blur.strength={"min":0.5}`.
fn parse_param(text: &str) -> Result<AllowedValue, String> {
    let (path, value) = text.split_once('=').ok_or("write EFFECT.NAME=JSON")?;
    let (effect, parameter) = path.split_once('.').ok_or("write EFFECT.NAME=JSON")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok(AllowedValue { effect: effect.into(), parameter: parameter.into(), value })
}
