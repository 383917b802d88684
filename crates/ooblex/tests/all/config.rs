//! Tests of the configuration: `ooblex.toml` documents the defaults of the code, and `ooblex check
//! --print` shows the effective values.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use ooblex_config::{Config, EffectConfig, WhenSlowConfig};
use ooblex_effects::WhenSlow;
use serde_json::Value;

const DOCUMENTED: &str = include_str!("../../../../ooblex.toml");

#[test]
fn loading_the_documented_file_changes_nothing() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ooblex.toml");
    assert_eq!(Config::load(Some(&file), &[]).unwrap(), Config::default());
}

#[test]
fn file_and_code_have_the_same_options_with_the_same_values() {
    let (mut in_code, mut in_file) = (BTreeSet::new(), BTreeSet::new());
    let mut complete = serde_json::to_value(Config::default()).unwrap();
    complete["effects"] = serde_json::to_value(own_choices()).unwrap();
    leaves("", &complete, &mut in_code);
    leaves("", &parse(&with_optional_lines(DOCUMENTED)), &mut in_file);
    // Options without a default are only compared by name.
    for unset in in_code.iter().filter_map(|leaf| leaf.strip_suffix("= null")).map(str::to_string).collect::<Vec<_>>() {
        let example = in_file.iter().find(|leaf| leaf.starts_with(&unset)).cloned();
        let example = example.unwrap_or_else(|| panic!("ooblex.toml lacks a line '#{unset}…'"));
        in_file.remove(&example);
        in_code.remove(&format!("{unset}= null"));
    }
    let (only_in_code, only_in_file) = (in_code.difference(&in_file).collect::<Vec<_>>(), in_file.difference(&in_code).collect::<Vec<_>>());
    assert!(only_in_code.is_empty() && only_in_file.is_empty(), "in code only: {only_in_code:?}; in ooblex.toml only: {only_in_file:?}");
}

#[test]
fn every_option_that_is_not_set_by_default_has_an_example_that_is_accepted() {
    let file = scratch("optional.toml", &with_optional_lines(DOCUMENTED));
    // The options of Redis are only accepted with a Redis.
    let config = Config::load(Some(&file), &[("broker.url", "rediss://redis.example".into())]).unwrap();
    assert!(config.inference.library.is_some() && config.inference.models.is_some());
    assert!(config.broker.ca_file.is_some() && config.broker.password_file.is_some());
    assert_eq!(config.effects, own_choices());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = scratch("precedence.toml", "serve.workers = 1\nserve.listen = '127.0.0.1:1001'\nlimits.sessions = 1\n");
    let flags = ["--workers", "3", "--config", file.to_str().unwrap()];
    let printed = in_force(&flags, &[("OOBLEX_SERVE__WORKERS", "2"), ("OOBLEX_SERVE__LISTEN", "127.0.0.1:1002")]);
    assert_eq!(printed["serve"]["workers"], 3, "flag over environment");
    assert_eq!(printed["serve"]["listen"], "127.0.0.1:1002", "environment over file");
    assert_eq!(printed["limits"]["sessions"], 1, "file over default");
    assert_eq!(printed["limits"]["body_kib"], 256, "default");
}

#[test]
fn without_a_file_the_defaults_are_in_force() {
    assert_eq!(in_force(&[], &[]), serde_json::to_value(Config::default()).unwrap());
}

#[test]
fn the_environment_can_say_lists_numbers_and_options_of_an_effect() {
    let printed = in_force(
        &[],
        &[
            ("OOBLEX_MEDIA__ADVERTISE", "203.0.113.7, 2001:db8::7,video.example:9000,[2001:db8::8]:9000"),
            ("OOBLEX_FRAMES__SAMPLING", "3"),
            ("OOBLEX_EFFECTS__FACE_DETECTION__WHEN_SLOW", "hold"),
            ("OOBLEX_WORKER__EFFECTS", "style_transfer, delay"),
            ("OOBLEX_DIAGNOSTICS__EFFECTS", "true"),
            ("OOBLEX_BROKER__PREFIX", "stage:"),
            ("OOBLEX_AUTH__MODE", "keys,jwt"),
            ("OOBLEX_AUTH__KEYS_FILE", "/run/keys.toml"),
            ("OOBLEX_AUTH__JWT__SECRET", "not a number"),
            ("OOBLEX_TURN__URLS", "turn:a,turn:b"),
            ("OOBLEX_TURN__SECRET_FILE", "/run/turn"),
            ("OOBLEX_SERVE__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1"),
            ("OOBLEX_SERVE__HOSTS", "localhost,video.example,"),
            ("OOBLEX_SERVE__ADMIN_LISTEN", "0.0.0.0:9000"),
            ("OOBLEX_BLESS", "1"),
        ],
    );
    assert_eq!(printed["worker"]["effects"], serde_json::json!(["style_transfer", "delay"]));
    assert_eq!((&printed["diagnostics"]["effects"], &printed["broker"]["prefix"]), (&true.into(), &"stage:".into()));
    assert_eq!(in_force(&[], &[("OOBLEX_WORKER__EFFECTS", "")])["worker"]["effects"], serde_json::json!([]));
    assert_eq!(in_force(&[], &[("OOBLEX_SERVE__WORKERS", "auto")])["serve"]["workers"], "auto");
    assert_eq!(
        printed["media"]["advertise"],
        serde_json::json!(["203.0.113.7", "2001:db8::7", "video.example:9000", "[2001:db8::8]:9000"])
    );
    assert_eq!(printed["serve"]["trusted_proxies"], serde_json::json!(["10.0.0.0/8", "192.0.2.1/32"]));
    assert_eq!(printed["serve"]["hosts"], serde_json::json!(["localhost", "video.example"]));
    assert_eq!(printed["serve"]["admin_listen"], "0.0.0.0:9000");
    assert_eq!(printed["auth"]["mode"], serde_json::json!(["keys", "jwt"]));
    assert_eq!((&printed["auth"]["jwt"]["secret"], &printed["turn"]["urls"]), (&"***".into(), &serde_json::json!(["turn:a", "turn:b"])));
    assert_eq!(in_force(&[], &[("OOBLEX_AUTH__MODE", "none")])["auth"]["mode"], "none");
    assert_eq!(printed["frames"]["sampling"], 3);
    assert_eq!(printed["effects"]["face_detection"]["when_slow"], "hold");
}

#[test]
fn every_flag_reaches_its_option() {
    let flags = "--listen 127.0.0.1:1 --media 127.0.0.1:2 --advertise 10.0.0.1 --advertise 10.0.0.2 --workers 5 --effect none --backend rten \
                 --models here --device cuda:1 --broker redis+unix:///run/redis.sock --effects delay,style_transfer --diagnostics";
    let printed = in_force(&flags.split(' ').collect::<Vec<_>>(), &[]);
    let serve = &printed["serve"];
    assert_eq!((&serve["listen"], &serve["workers"], &serve["default_effect"]), (&"127.0.0.1:1".into(), &5.into(), &"none".into()));
    assert_eq!(printed["media"], serde_json::json!({"listen": "127.0.0.1:2", "advertise": ["10.0.0.1", "10.0.0.2"], "tcp_listen": null}));
    let inference = &printed["inference"];
    assert_eq!((&inference["backend"], &inference["models"], &inference["device"]), (&"rten".into(), &"here".into(), &"cuda:1".into()));
    assert_eq!(printed["broker"]["url"], "redis+unix:///run/redis.sock?db=0");
    assert_eq!(printed["worker"]["effects"], serde_json::json!(["delay", "style_transfer"]));
    assert_eq!(printed["diagnostics"]["effects"], true);
    assert_eq!(in_force(&["--workers", "auto"], &[("OOBLEX_SERVE__WORKERS", "3")])["serve"]["workers"], "auto");
}

#[test]
fn what_is_not_understood_is_refused_with_the_option_and_what_it_may_be() {
    for (file, words) in [
        ("serve.listn = '127.0.0.1:80'", &["listn", "serve", "expected one of", "listen"][..]),
        ("[sever]\nworkers = 1", &["sever", "expected one of", "serve"]),
        ("serve.listen = 'everywhere'", &["serve.listen", "socket address"]),
        ("media.advertise = ['udp://gateway.example']", &["media.advertise", "udp://gateway.example", "IP address", "host name"]),
        ("media.tcp_listen = '127.0.0.1:8000'", &["media.tcp_listen", "serve.listen"]),
        ("media.advertise = ['gateway.example:0']", &["media.advertise", "gateway.example:0"]),
        ("serve.workers = 'many'", &["serve.workers", "many", "auto", "number"]),
        ("serve.workers = -1", &["serve.workers", "-1", "auto"]),
        ("serve.workers = 0", &["serve.workers = 0", "local", "auto", "--broker"]),
        ("worker.threads = 0", &["worker.threads", "auto", "number above 0"]),
        ("worker.threads = 100000", &["worker.threads", "at most 1024"]),
        ("worker.listen = 'here'", &["worker.listen", "socket address"]),
        ("broker.url = 'localhost:6379'", &["broker.url", "redis://[user]", "rediss://", "redis+unix://", "local"]),
        ("broker.url = 'redis://u:a#b@h'", &["broker.url", "percent-encoded", "broker.password_file"]),
        ("broker.url = 'redis+sentinel://h:1'", &["broker.url", "master", "redis+sentinel://"]),
        ("[broker]\nurl = 'rediss://h'\nclient_key = 'k'", &["broker.client_key", "broker.client_certificate", "both"]),
        ("[broker]\nurl = 'rediss://h'\nclient_certificate = 'c'", &["broker.client_key", "broker.client_certificate", "both"]),
        (
            "[broker]\nurl = 'redis://h'\nclient_certificate = 'c'\nclient_key = 'k'",
            &["broker.client_certificate", "rediss://", "redis://h"],
        ),
        ("broker.prefix = ''", &["broker.prefix", "1 to 100"]),
        ("broker.prefix = 'my ooblex:'", &["broker.prefix", "my ooblex:", "blanks"]),
        ("broker.prefix = 'ooblex*'", &["broker.prefix", "ooblex*"]),
        ("broker.ca_file = 'ca.pem'", &["broker.ca_file", "rediss://"]),
        ("[broker]\nurl = 'redis://h'\nca_file = 'ca.pem'", &["broker.ca_file", "rediss://", "redis://h"]),
        ("broker.password_file = 'p'", &["broker.password_file", "local"]),
        ("inference.device = 'toaster'", &["inference.device", "toaster", "cpu", "cuda"]),
        ("video.max_bitrate_kbps = -4", &["video.max_bitrate_kbps", "unsigned"]),
        ("video.vp8_speed = 'warp'", &["video.vp8_speed", "warp", "balanced", "fast"]),
        ("inference.backend = 'cuda'", &["inference.backend", "cuda", "auto", "onnx_runtime", "rten"]),
        ("frames.sampling = 'often'", &["frames.sampling", "auto", "number above 0"]),
        ("frames.sampling = 0", &["frames.sampling", "auto", "number above 0"]),
        ("effects.none.when_slow = 'panic'", &["when_slow", "panic", "hold", "reuse"]),
        ("effects.none.speed = 1", &["speed", "when_slow", "max_age_ms"]),
        ("this is [not toml", &["TOML", "line 1"]),
        ("video.min_bitrate_kbps = 9000", &["min_bitrate_kbps <= start_bitrate_kbps <= max_bitrate_kbps"]),
        ("video.min_bitrate_kbps = 1", &["video.min_bitrate_kbps", "at least 30"]),
        ("frames.deadline_ms = 0", &["frames.deadline_ms", "above 0"]),
        ("serve.workers = 100000", &["serve.workers", "at most 1024"]),
        ("limits.sessions = 0", &["limits", "above 0"]),
        ("limits.offers_per_minute = 0", &["limits", "above 0"]),
        ("limits.connect_s = 1", &["limits", "connect_s", "from 2"]),
        ("limits.idle_s = 1", &["limits", "idle_s", "from 5"]),
        ("limits.media_ms = 5", &["limits.media_ms", "from 20"]),
        ("serve.drain_s = 100000", &["serve.drain_s", "at most"]),
        ("log.format = 'xml'", &["log.format", "xml", "text", "json"]),
        ("serve.tls_key = 'key.pem'", &["serve.tls_certificate", "serve.tls_key", "together"]),
        ("serve.hosts = ['https://video.example']", &["serve.hosts", "https://video.example", "without scheme"]),
        ("serve.allow_origins = ['app.example']", &["serve.allow_origins", "'app.example'", "https://app.example"]),
        ("serve.admin_listen = '127.0.0.1:8000'", &["serve.admin_listen", "another address or port", "serve.listen"]),
        ("limits.connections = 0", &["limits", "above 0"]),
        ("auth.mode = 'open'", &["auth.mode", "open", "none", "keys", "jwt", "hook"]),
        ("auth.mode = []", &["auth.mode", "empty"]),
        ("auth.mode = ['none', 'keys']", &["auth.mode", "none", "alone"]),
        ("auth.mode = 'keys'", &["auth.mode", "ooblex token key", "auth.keys_file"]),
        ("auth.mode = 'jwt'", &["auth.jwt.secret_file", "auth.jwt.jwks_url"]),
        ("[auth]\nmode = 'jwt'\njwt = { secret = 'a', jwks_url = 'https://h/' }", &["exactly one", "auth.jwt.jwks_url"]),
        ("[auth]\nmode = 'jwt'\njwt.jwks_url = 'http://h/'", &["auth.jwt.jwks_url", "https://"]),
        ("auth.mode = 'hook'", &["auth.hook.url"]),
        ("auth.hook.url = 'h'", &["auth.hook.url", "https://HOST/PATH"]),
        ("auth.hook.url = 'https://ann:pw@h/'", &["auth.hook.url", "no user name and no password"]),
        ("[[auth.keys]]\nname = 'a'\nrole = 'owner'\nhash = ''", &["role", "owner", "publish", "view", "admin"]),
        ("turn.urls = ['stun:h']", &["turn.urls", "stun:h", "turn:HOST"]),
        ("turn.urls = ['turn:h']", &["turn.urls", "turn.secret_file"]),
        ("[turn]\nurls = ['turn:h']\nsecret = 'a'\nttl_s = 1", &["turn.ttl_s", "60"]),
        ("log.filter = 'a==b'", &["log.filter", "a==b", "write 'info'"]),
    ] {
        let path = scratch("refused.toml", file);
        assert_refused(&ooblex(&["check", "--print", "--config", path.to_str().unwrap()], &[]), file, words);
    }
}

#[test]
fn what_is_not_understood_is_refused_in_the_environment_and_in_flags_as_well() {
    let print = ["check", "--print"];
    assert_refused(&ooblex(&print, &[("OOBLEX_SERVE__LISTN", "1")]), "environment", &["listn", "serve"]);
    assert_refused(&ooblex(&print, &[("OOBLEX_LIMITS__SESSIONS", "many")]), "environment", &["limits.sessions", "environment"]);
    assert_refused(&ooblex(&print, &[("OOBLEX_SERVE__WORKERS", "many")]), "environment", &["serve.workers", "auto"]);
    assert_refused(&ooblex(&["check", "--print", "--listen", "nowhere"], &[]), "flag", &["serve.listen", "socket address"]);
    assert_refused(&ooblex(&["check", "--print", "--lisen", "nowhere"], &[]), "flag", &["--lisen", "--listen"]);
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    assert_refused(&ooblex(&["check", "--print", "--config", "no/such.toml"], &[]), "--config", &["no/such.toml", "leave --config away"]);
}

#[test]
fn a_section_for_an_effect_that_does_not_exist_keeps_the_gateway_from_serving() {
    let path = scratch("effect.toml", "effects.swirl.when_slow = 'hold'");
    let output = ooblex(&["serve", "--listen", "127.0.0.1:0", "--config", path.to_str().unwrap()], &[]);
    assert_refused(&output, "serve", &["effects.swirl", "background_blur"]);
    assert_refused(&ooblex(&["serve", "--listen", "127.0.0.1:0", "--effect", "swirl"], &[]), "serve", &["serve.default_effect", "swirl"]);
}

#[test]
fn workers_serve_only_effects_that_there_are_and_that_need_workers() {
    let serve = |effects: &str| ooblex(&["serve", "--listen", "127.0.0.1:0", "--effects", effects], &[]);
    assert_refused(&serve("swirl"), "serve", &["worker.effects", "swirl", "background_blur"]);
    assert_refused(&serve("none"), "serve", &["worker.effects", "none", "background_blur"]);
    assert_refused(&serve("delay"), "serve", &["worker.effects", "delay", "--diagnostics"]);
}

#[test]
fn a_worker_without_a_broker_that_others_reach_is_refused() {
    let words = ["a worker needs a broker that other processes reach", "--broker redis://"];
    assert_refused(&ooblex(&["worker"], &[]), "worker", &words);
    assert_refused(&ooblex(&["worker", "--broker", "local"], &[]), "worker", &words);
}

#[test]
fn every_flag_of_the_worker_reaches_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["worker", "--broker", "redis://127.0.0.1:1", "--effects", "delay", "--diagnostics", "--listen", &address];
    assert_refused(&ooblex(&flags, &[]), "--listen", &["worker.listen", &address]);
    for (flag, value, option) in [
        ("--threads", "0", "worker.threads"),
        ("--device", "toaster", "inference.device"),
        ("--backend", "abacus", "inference.backend"),
        ("--broker", "amqp://h", "broker.url"),
    ] {
        assert_refused(&ooblex(&["worker", flag, value], &[]), flag, &[option]);
    }
}

#[test]
fn effects_of_diagnostics_are_listed_on_request_only() {
    let listed = |flags: &[&str]| String::from_utf8(ooblex(&[&["effects"], flags].concat(), &[]).stdout).unwrap();
    assert!(!listed(&[]).contains("delay") && listed(&[]).contains("background_blur"));
    assert!(listed(&["--diagnostics"]).contains("delay"));
    assert!(listed(&["--diagnostics", "--json"]).contains("slow_every"));
}

#[test]
fn the_password_of_redis_is_never_shown() {
    const SECRET: &str = "hunter2hunter2";
    let address = format!("redis://ann:{SECRET}@127.0.0.1:1/3");
    let printed = in_force(&["--broker", &address], &[]);
    assert_eq!(printed["broker"]["url"], "redis://ann:***@127.0.0.1:1/3");
    let half = scratch("half.toml", &format!("[broker]\nurl = \"{address}\n"));
    let wrong = scratch("wrong.toml", &format!("[broker]\nurl = \"redis://ann:{SECRET}@h:port\"\n"));
    let password = scratch("password", &format!("{SECRET}\n"));
    let (half, wrong, password) = (half.to_str().unwrap(), wrong.to_str().unwrap(), password.to_str().unwrap());
    for flags in [
        &["--print", "--config", half][..],
        &["--print", "--config", wrong],
        &["--print", "--broker", &address.replace("redis:", "http:")],
        &["--print", "--broker", &address, "--workers", "none"],
        &["--broker", &address, "--listen", "127.0.0.1:0", "--media", "127.0.0.1:0"],
    ] {
        let output = ooblex(&[&["check"], flags].concat(), &[("OOBLEX_BROKER__PASSWORD_FILE", password)]);
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && !said.is_empty(), "{flags:?}");
        assert!(!said.contains(SECRET), "{flags:?}: {said}");
    }
}

#[test]
fn a_password_file_that_holds_none_is_refused_by_name() {
    let empty = scratch("empty", "\n");
    for (file, words) in [("no/such/file", ["broker.password_file", "no/such/file"]), (empty.to_str().unwrap(), ["is empty", "password"])] {
        let output =
            ooblex(&["worker", "--broker", "redis://127.0.0.1:1", "--listen", "127.0.0.1:0"], &[("OOBLEX_BROKER__PASSWORD_FILE", file)]);
        assert_refused(&output, file, &words);
    }
}

/// Returns the default behaviour of each effect with models, in the form of configuration.
fn own_choices() -> std::collections::BTreeMap<String, EffectConfig> {
    let with_models = ooblex_effects::effects().into_iter().filter(|effect| !effect.models().is_empty());
    with_models
        .map(|effect| {
            let (when_slow, max_age_ms) = match effect.when_slow() {
                WhenSlow::Hold => (WhenSlowConfig::Hold, 200),
                WhenSlow::Reuse { max_age } => (WhenSlowConfig::Reuse, max_age.as_millis() as u64),
            };
            (effect.name().to_string(), EffectConfig { when_slow: Some(when_slow), max_age_ms: Some(max_age_ms) })
        })
        .collect()
}

/// Enables the commented-out options of a text: `#name = value`, `#[section]`.
fn with_optional_lines(text: &str) -> String {
    text.lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line).to_string() + "\n")
        .collect()
}

fn parse(text: &str) -> Value {
    let source = config::File::from_str(text, config::FileFormat::Toml);
    config::Config::builder().add_source(source).build().unwrap().try_deserialize().unwrap()
}

/// Collects every option with its value, such as `serve.workers = 0`.
fn leaves(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(options) => {
            for (name, value) in options {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, found);
            }
        }
        value => _ = found.insert(format!("{path} = {value}")),
    }
}

fn in_force(flags: &[&str], variables: &[(&str, &str)]) -> Value {
    let output = ooblex(&[&["check", "--print"], flags].concat(), variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_refused(output: &Output, what: &str, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "accepted: {what}");
    for word in words {
        assert!(said.contains(word), "'{what}' is refused without a word of '{word}': {said}");
    }
    let line = said.lines().next().unwrap_or_default();
    assert!(line.len() < 40 || said.matches(line).count() == 1, "says it twice: {said}");
}

/// Runs the program in a folder without a configuration file, and without the environment of the
/// test runner.
fn ooblex(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOBLEX_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder()).output().unwrap()
}

fn scratch(name: &str, text: &str) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config");
    fs::create_dir_all(&folder).unwrap();
    folder
}
