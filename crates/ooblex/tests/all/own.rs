//! Tests of custom effects in running processes: added to the folder, reloaded, used and removed,
//! with workers in the gateway and in other processes over Redis; and of models that hang, crash or
//! are too slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{Gateway, Player, RedisServer, SMALL, WITHIN, Worker, machine, play_together, scene, temporary_folder};
use ooblex_client::Wish;
use ooblex_pipeline::I420;
use rustix::process::Signal;
use serde_json::{Value, json};

const PICTURE: &str = "[picture]\n";
const HIDING: &str = "[mask]\nactivation = \"softmax\"\nchannel = 1\nrest = \"blur\"\n";

/// A temporary folder of effects, which is deleted when dropped.
struct CustomEffects(PathBuf);

impl CustomEffects {
    fn new() -> Self {
        Self(temporary_folder())
    }

    /// Adds an effect with one of the test models. It is first written under another name and then
    /// renamed, as a careful copy does.
    fn put(&self, name: &str, model: &str, rest: &str) {
        let (made, place) = (self.0.join(format!(".{name}")), self.0.join(name));
        fs::create_dir_all(&made).unwrap();
        fs::copy(data(&format!("{model}.onnx")), made.join("model.onnx")).unwrap();
        let hides = if rest == HIDING { "hides = true\n" } else { "" };
        let text = format!("{hides}name = \"{name}\"\ntitle = \"{name}\"\n[model]\nfile = \"model.onnx\"\nwidth = 64\nheight = 48\n{rest}");
        fs::write(made.join("effect.toml"), text).unwrap();
        _ = fs::remove_dir_all(&place);
        fs::rename(made, place).unwrap();
    }

    fn take(&self, name: &str) {
        fs::remove_dir_all(self.0.join(name)).unwrap();
    }

    fn config(&self) -> String {
        self.with("")
    }

    fn with(&self, more: &str) -> String {
        format!("[own_effects]\nfolder = {:?}\n{more}", self.0)
    }
}

impl Drop for CustomEffects {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "effects", "tests", "data", "own", name].iter().collect()
}

/// Options of a gateway with one built-in worker thread and a cheap default effect.
const ALONE: &[&str] = &["--workers", "1", "--effect", "sepia"];

fn reload(gateway: &Gateway) -> Value {
    let mut answer = ureq::post(format!("{}/api/effects/reload", gateway.url)).send_empty().unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn find(gateway: &Gateway, name: &str) -> Option<Value> {
    let listed = gateway.json("/api/effects");
    listed["effects"].as_array().unwrap().iter().find(|effect| effect["name"] == name).cloned()
}

fn offered(gateway: &Gateway, name: &str) -> bool {
    find(gateway, name).is_some_and(|effect| effect["available"] == true)
}

fn refusal(gateway: &Gateway, folder: &str) -> String {
    let listed = gateway.json("/api/effects");
    let refused = listed["refused"].as_array().unwrap().iter().find(|refused| refused["folder"] == folder).cloned();
    refused.map(|refused| refused["reason"].as_str().unwrap().to_string()).unwrap_or_default()
}

fn player(gateway: &Gateway, effect: &str) -> Player {
    Player::new(gateway, &Wish { effect: Some(effect.into()), ..Wish::default() })
}

/// Returns the mean luma of the last picture shown.
fn brightness(player: &Player) -> f64 {
    let luma = player.shown.last().unwrap().picture.planes()[0];
    luma.iter().map(|luma| f64::from(*luma)).sum::<f64>() / luma.len() as f64
}

/// Plays until the shown picture meets the condition.
fn play_until_shown(player: &mut Player, what: &str, holds: impl Fn(&Player) -> bool) {
    play_together(std::slice::from_mut(player), SMALL, 600, what, |players| !players[0].shown.is_empty() && holds(&players[0]));
}

/// Plays until five more frames with this effect have been sent.
fn play_painted(player: &mut Player, gateway: &Gateway, effect: &str) {
    let painted = || gateway.metric_of("ooblex_frames_shown_total", &format!("effect=\"{effect}\""));
    let before = painted();
    let what = format!("frames painted by {effect}");
    play_together(std::slice::from_mut(player), SMALL, 900, &what, |_| painted() >= before + 5.0);
}

#[test]
fn a_folder_that_is_dropped_in_is_served_after_a_signal_and_sessions_go_on() {
    let custom_effects = CustomEffects::new();
    let gateway = Gateway::start(&custom_effects.config(), ALONE);
    let (mut other, mut ours) = (player(&gateway, "background_blur"), player(&gateway, "sepia"));
    play_painted(&mut other, &gateway, "background_blur");
    play_until_shown(&mut ours, "sepia", |player| player.shown.len() > 5);
    let before = brightness(&ours);
    assert!(find(&gateway, "negative").is_none());

    custom_effects.put("negative", "invert", PICTURE);
    gateway.signal(Signal::HUP);
    gateway.wait("the new effect", |_| offered(&gateway, "negative"));
    let listed = find(&gateway, "negative").unwrap();
    assert_eq!((&listed["own"], &listed["models"]), (&json!(true), &json!(["negative/model.onnx"])));
    assert!(gateway.metric_of("ooblex_effect_workers", "effect=\"negative\"") == 1.0);
    let mut thumbnail = ureq::get(format!("{}/api/effects/negative/thumbnail.png", gateway.url)).call().unwrap();
    assert!(thumbnail.body_mut().read_to_vec().unwrap().starts_with(b"\x89PNG"));

    ours.client.say(&json!({"type": "set_effect", "effect": "negative", "id": 1})).unwrap();
    play_until_shown(&mut ours, "the negative", |player| {
        player.heard(0, "ack").iter().any(|ack| ack["effect"] == "negative") && (brightness(player) - (251.0 - before)).abs() < 25.0
    });
    play_painted(&mut other, &gateway, "background_blur");
    assert!(!ours.ended && !other.ended);

    // The effect is replaced: the session continues with the new version by itself. The negative
    // becomes a picture of a quarter of the size.
    custom_effects.put("negative", "quarter", PICTURE);
    let told = reload(&gateway);
    assert_eq!(told, json!({"added": [], "changed": ["negative"], "removed": [], "refused": []}));
    play_until_shown(&mut ours, "the other picture", |player| (brightness(player) - before).abs() < 25.0);

    // The effect is removed: the session is told, and holds its picture until it requests another
    // effect.
    custom_effects.take("negative");
    let mark = ours.messages.len();
    assert_eq!(reload(&gateway)["removed"], json!(["negative"]));
    ours.play_until_told(300, "to be told", |player| player.told_problem(mark, "no-worker").is_some());
    assert!(ours.told_problem(mark, "no-worker").unwrap()["detail"].as_str().unwrap().contains("taken away or replaced"));
    play_painted(&mut other, &gateway, "background_blur");
    assert!(!ours.ended);
    ours.client.say(&json!({"type": "set_effect", "effect": "background_blur", "id": 2})).unwrap();
    play_painted(&mut ours, &gateway, "background_blur");
}

#[test]
fn what_is_refused_is_told_and_hinders_nothing() {
    let custom_effects = CustomEffects::new();
    custom_effects.put("good", "invert", PICTURE);
    custom_effects.put("not_a_number", "nan", PICTURE);
    custom_effects.put("endless", "hang", PICTURE);
    custom_effects.put("sepia", "invert", PICTURE);
    custom_effects.put("misspelt", "invert", "[pictur]\n");
    let gateway = Gateway::start(&custom_effects.with("trial_s = 2\n"), ALONE);
    gateway.wait("the good one", |_| offered(&gateway, "good"));
    for (folder, words) in [
        ("not_a_number", "not_a_number/model.onnx gave a value that is not finite in 'nan'"),
        ("endless", "endless/model.onnx: it was ended after 2s: the model hangs"),
        ("sepia", "sepia/effect.toml:1: name = \"sepia\" is that of an effect of the program"),
        ("misspelt", "misspelt/effect.toml:7: unknown field `pictur`"),
    ] {
        assert!(refusal(&gateway, folder).contains(words), "{folder}: {}", refusal(&gateway, folder));
        gateway.wait(&format!("a line in the log on {folder}"), |gateway| gateway.said().contains(words));
    }
    let mut session = player(&gateway, "good");
    play_painted(&mut session, &gateway, "good");
    // Pages of other hosts must not start trials.
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
    let asked = ureq::Agent::new_with_config(config);
    let url = format!("{}/api/effects/reload", gateway.url);
    assert_eq!(asked.post(&url).header("origin", "https://elsewhere.example").send_empty().unwrap().status(), 403);
    let own = gateway.url.clone();
    assert_eq!(asked.post(&url).header("origin", own).send_empty().unwrap().status(), 200);
}

#[test]
fn a_gateway_without_models_offers_what_workers_have_and_nothing_else_is_mixed_up() {
    let redis = RedisServer::start();
    let (here, there) = (CustomEffects::new(), CustomEffects::new());
    here.put("hiding", "left_half", HIDING);
    let gateway = Gateway::start(&here.config(), &["--broker", &redis.url(), "--effect", "sepia"]);
    let worker = Worker::start(&there.config(), &["--broker", &redis.url(), "--threads", "1"]);
    gateway.wait_for_workers(1);
    gateway.wait("the declaration", |_| find(&gateway, "hiding").is_some());
    assert!(!offered(&gateway, "hiding"), "nobody serves it yet");
    assert_eq!(find(&gateway, "hiding").unwrap().get("thumbnail"), None, "a gateway without workers runs no models");
    let thumbnail = ureq::get(format!("{}/api/effects/hiding/thumbnail.png", gateway.url)).call();
    assert!(matches!(thumbnail, Err(ureq::Error::StatusCode(404))), "{thumbnail:?}");
    let mut session = player(&gateway, "hiding");
    session.play_until_told(300, "that nobody serves it", |player| player.told_problem(0, "no-worker").is_some());
    assert!(session.told_problem(0, "no-worker").unwrap()["detail"].as_str().unwrap().contains("effects.d of a worker"));

    // Another version of the effect on the worker's machine cannot serve the gateway's version.
    there.put("hiding", "left_half", "[mask]\nactivation = \"softmax\"\nchannel = 0\nrest = \"blur\"\n");
    worker.signal(Signal::HUP);
    worker.wait("the worker's effect", |worker| worker.text("/readyz").contains("\"hiding\""));
    assert!(!offered(&gateway, "hiding"), "what was prepared here would be analysed by another model");

    there.put("hiding", "left_half", HIDING);
    let mark = session.messages.len();
    worker.signal(Signal::HUP);
    gateway.wait("the same version", |_| offered(&gateway, "hiding"));
    session.play_until_told(300, "that it is served", |player| player.told_service(mark, "served"));
    let what = "frames that the worker has analysed";
    play_together(std::slice::from_mut(&mut session), SMALL, 600, what, |_| worker.analysed("hiding") > 20.0);
    // The right half is blurred in every picture, including the placeholder.
    let sharpest = |picture: &I420| {
        let rows = picture.planes()[0].chunks_exact(SMALL.0 as usize);
        rows.map(|row| row[110..155].windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap()).max().unwrap()
    };
    let bare = (0..30).map(|number| sharpest(&scene(SMALL.0, SMALL.1, number))).max().unwrap();
    let worst = session.shown.iter().map(|shown| sharpest(&shown.picture)).max().unwrap();
    assert!(worst < bare / 2, "an edge of {worst} is seen in the half that is hidden, of {bare} in the source");
}

#[test]
fn a_model_that_hangs_in_a_worker_costs_frames_and_not_the_gateway() {
    let redis = RedisServer::start();
    let (here, there) = (CustomEffects::new(), CustomEffects::new());
    for custom_effects in [&here, &there] {
        custom_effects.put("on_green", "hang_on_green", PICTURE);
    }
    let gateway = Gateway::start(&here.config(), &["--broker", &redis.url(), "--effect", "sepia"]);
    let mut worker = Worker::start(&there.config(), &["--broker", &redis.url(), "--threads", "1"]);
    gateway.wait("the effect", |_| offered(&gateway, "on_green"));
    let mut session = player(&gateway, "on_green");
    play_painted(&mut session, &gateway, "on_green");
    // A picture that is entirely green makes the model count to 2^62.
    let mut green = I420::grey(SMALL.0, SMALL.1, 145);
    green.planes_mut()[1].fill(54);
    green.planes_mut()[2].fill(34);
    // A dropped frame with the reason `lost` shows that a worker had taken a frame.
    gateway.wait("frames to be given up", |_| {
        session.play(&green);
        gateway.dropped("lost") > 0.0
    });
    assert!(!session.ended);
    let other = Worker::start(&there.config(), &["--broker", &redis.url(), "--threads", "1"]);
    worker.kill();
    gateway.wait_for_workers(1);
    play_painted(&mut session, &gateway, "on_green");
    drop(other);
}

#[test]
fn a_model_that_hangs_in_the_gateway_costs_seconds_and_is_not_served_any_more() {
    let custom_effects = CustomEffects::new();
    custom_effects.put("on_green", "hang_on_green", PICTURE);
    let gateway = Gateway::start(&custom_effects.config(), ALONE);
    gateway.wait("the effect", |_| offered(&gateway, "on_green"));
    let (mut session, mut other) = (player(&gateway, "on_green"), player(&gateway, "background_blur"));
    play_painted(&mut session, &gateway, "on_green");
    let mut green = I420::grey(SMALL.0, SMALL.1, 145);
    green.planes_mut()[1].fill(54);
    green.planes_mut()[2].fill(34);
    (0..30).for_each(|_| session.play(&green));
    // The gateway's only worker becomes available again, and never runs this model again.
    gateway.wait("the worker to let go of it", |_| !offered(&gateway, "on_green"));
    gateway.wait("a line in the log", |gateway| gateway.said().contains("does not serve it any more"));
    play_painted(&mut other, &gateway, "background_blur");
    session.play_until_told(300, "to be told", |player| player.told_problem(0, "no-worker").is_some());
    assert!(!session.ended && gateway.answer("/healthz").0 == 200);
    reload(&gateway);
    gateway.wait("another chance", |_| offered(&gateway, "on_green"));
    play_painted(&mut session, &gateway, "on_green");
}

#[test]
fn custom_effects_can_be_the_default_and_be_configured_by_name() {
    let custom_effects = CustomEffects::new();
    custom_effects.put("good", "invert", PICTURE);
    custom_effects.put("bad", "nan", PICTURE);
    let config = custom_effects.with("[effects.good]\nwhen_slow = \"reuse\"\n[effects.bad]\nwhen_slow = \"hold\"\n");
    let gateway = Gateway::start(&config, &["--workers", "1", "--effect", "good", "--effects", "good,background_blur"]);
    gateway.wait("it to be ready", |gateway| gateway.answer("/readyz").0 == 200);
    let mut session = Player::new(&gateway, &Wish::default());
    play_painted(&mut session, &gateway, "good");
    assert!(Gateway::refuse(&["--effect", "nowhere"]).contains("names no effect"));
    // A refused effect as the default keeps the gateway from being ready, but not from starting.
    let other = Gateway::start(&custom_effects.config(), &["--workers", "1", "--effect", "bad"]);
    other.wait("the refusal", |_| !refusal(&other, "bad").is_empty());
    let (status, said) = other.answer("/readyz");
    assert!(status == 503 && said.contains("serve.default_effect is not offered now"), "{said}");
}

/// Returns the child processes of a process.
fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |id: &u32| {
        let about = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<_> = about.rsplit(')').next()?.split_whitespace().collect();
        // A zombie has ended, and is not counted.
        (fields[0] != "Z").then(|| fields[1].parse::<u32>().ok())?
    };
    processes.filter(|id| parent(id) == Some(of)).collect()
}

#[test]
fn a_trial_ends_with_the_program_that_waits_for_it() {
    let custom_effects = CustomEffects::new();
    custom_effects.put("endless", "hang", PICTURE);
    let mut gateway =
        Gateway::start(&custom_effects.with("trial_s = 600\n"), &["--workers", "1", "--effect", "sepia", "--backend", "rten"]);
    gateway.wait("the trial", |gateway| !children(gateway.id()).is_empty());
    let trial = children(gateway.id())[0];
    // The gateway continues to serve during the trial.
    let mut session = player(&gateway, "background_blur");
    play_painted(&mut session, &gateway, "background_blur");
    assert!(fs::exists(format!("/proc/{trial}")).unwrap());
    gateway.kill();
    let deadline = std::time::Instant::now() + WITHIN;
    // The process that adopts orphans may leave them as zombies.
    let runs = || fs::read_to_string(format!("/proc/{trial}/stat")).is_ok_and(|about| !about.contains(") Z "));
    while runs() {
        assert!(std::time::Instant::now() < deadline, "the trial runs on without the program that wanted it");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_trial_inherits_no_secrets_and_no_descriptors_and_is_limited() {
    let custom_effects = CustomEffects::new();
    custom_effects.put("endless", "hang", PICTURE);
    let redis = RedisServer::start();
    let config = custom_effects.with("trial_s = 600\ntrial_memory_mib = 2048\n");
    // Redis, UDP, TCP and a session provide sockets of all kinds.
    let flags = ["--workers", "1", "--effect", "sepia", "--backend", "rten", "--broker", &redis.url()];
    let gateway = Gateway::with_environment(&config, &flags, &[("OOBLEX_LOG__FILTER", "info"), ("A_SECRET", "open-sesame-7391")]);
    gateway.wait("the trial", |gateway| !children(gateway.id()).is_empty());
    let trial = children(gateway.id())[0];
    let of = |what: &str| fs::read_to_string(format!("/proc/{trial}/{what}")).unwrap();
    gateway.wait("the trial to run its model", |_| {
        // This limit is the last one to be set.
        of("limits").lines().any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(5) == Some("0"))
    });

    let environment = of("environ");
    let names: Vec<_> = environment.split('\0').filter_map(|variable| variable.split_once('=')).map(|(name, _)| name).collect();
    let allowed = ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "TMPDIR", "LANG", "LC_ALL", "LC_MESSAGES", "RUST_BACKTRACE"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    assert!(names.contains(&"RUST_BACKTRACE") && !environment.contains("open-sesame-7391"), "{environment}");

    let mine = |id: u32| -> Vec<String> {
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok()).map(|to| to.display().to_string()).collect()
    };
    let (gateway_has, trial_has) = (mine(gateway.id()), mine(trial));
    assert!(gateway_has.iter().filter(|to| to.starts_with("socket:")).count() >= 4, "{gateway_has:?}");
    // The trial has pipes to the gateway. Descriptors that the test runner has leaked to all
    // processes are ignored.
    let everybodys = mine(std::process::id());
    let own: Vec<_> = trial_has.iter().filter(|to| !everybodys.contains(to)).collect();
    assert!(!own.iter().any(|to| to.starts_with("socket:") || to.starts_with("anon_inode:")), "{own:?}");
    assert!(own.iter().filter(|to| to.starts_with("pipe:")).count() <= 3, "{own:?}");

    let limits = of("limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {limits}"));
        line[name.len()..].split_whitespace().map(str::to_string).take(2).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max address space"), [(2048_u64 << 20).to_string(), (2048_u64 << 20).to_string()]);
    assert_eq!(limit("Max file size"), [(256_u64 << 20).to_string(), (256_u64 << 20).to_string()]);
    assert_eq!(limit("Max open files"), ["64", "64"]);
    for name in ["Max cpu time", "Max processes"] {
        assert!(limit(name).iter().all(|most| most.parse::<u64>().is_ok_and(|most| most <= 8192)), "{name}: {:?}", limit(name));
    }
}

// Command-line tests

fn ooblex(arguments: &[&str]) -> (bool, String) {
    let _machine = machine::share();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_ooblex")).args(arguments).output().unwrap();
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn the_command_checks_a_folder_and_shows_what_it_does() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "examples", "effects.d", "faces"].iter().collect();
    let made = CustomEffects::new();
    let picture = made.0.join("faces.png");
    let (fine, said) = ooblex(&["effect", "check", folder.to_str().unwrap(), "--write", picture.to_str().unwrap()]);
    assert!(fine && said.contains("ok    effect   faces: Faces") && said.contains("ms a frame") && said.contains("face 9"), "{said}");
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));

    for (model, backend, words) in [
        ("nan", "onnx_runtime", "nan/model.onnx gave a value that is not finite in 'nan'"),
        ("unknown_operator", "onnx_runtime", "No Op registered for Frobnicate"),
        ("unknown_operator", "rten", "Frobnicate"),
        // The model requests more memory than available, and rten aborts its process.
        ("greedy", "rten", "greedy/model.onnx: it crashed the process that tried it (signal: 6"),
    ] {
        made.put(model, model, PICTURE);
        let (fine, said) = ooblex(&["effect", "check", made.0.join(model).to_str().unwrap(), "--backend", backend]);
        assert!(!fine && said.contains(words), "{model} on {backend}: {said}");
    }
}

#[test]
fn a_model_that_is_too_slow_is_refused_with_its_time() {
    let custom_effects = CustomEffects::new();
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "examples", "effects.d", "faces"].iter().collect();
    let slow = custom_effects.0.join("slow");
    fs::create_dir(&slow).unwrap();
    fs::copy(folder.join("model.onnx"), slow.join("model.onnx")).unwrap();
    let text = fs::read_to_string(folder.join("effect.toml")).unwrap();
    fs::write(slow.join("effect.toml"), text).unwrap();
    let config = custom_effects.0.join("ooblex.toml");
    // Inference with rten takes about ten times as long as this limit of 1 ms, on any machine.
    fs::write(&config, custom_effects.with("frame_ms = 1\n")).unwrap();
    let config = config.to_str().unwrap();
    let (fine, said) = ooblex(&["effect", "check", slow.to_str().unwrap(), "--backend", "rten", "--config", config]);
    assert!(!fine && said.contains("slow/model.onnx: a frame takes") && said.contains("and 1 are allowed"), "{said}");
    let (_, said) =
        ooblex(&["check", "--backend", "rten", "--workers", "1", "--listen", "127.0.0.1:0", "--media", "127.0.0.1:0", "--config", config]);
    assert!(said.contains("warn  own") && said.contains("slow/model.onnx: a frame takes"), "{said}");
    assert!(Path::new(config).exists());
}

/// Returns the code blocks in a text, each with its language.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) if !inside => {
                blocks.push((language.into(), String::new()));
                inside = true;
            }
            Some(_) => inside = false,
            None if inside => blocks.last_mut().unwrap().1 += &format!("{line}\n"),
            None => {}
        }
    }
    blocks
}

#[test]
fn the_tutorial_works_as_it_stands() {
    let root: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect();
    let root = root.canonicalize().unwrap();
    let place = CustomEffects::new();
    for name in ["models", "examples", "tests"] {
        std::os::unix::fs::symlink(root.join(name), place.0.join(name)).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_ooblex")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut declared = Vec::new();
    for (language, text) in blocks(&fs::read_to_string(root.join("docs/custom-effect.md")).unwrap()) {
        match language.as_str() {
            "sh" => {
                let ran = Command::new("bash").args(["-ec", &text]).current_dir(&place.0).env("PATH", &path).output().unwrap();
                let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
                assert!(ran.status.success(), "{text}{said}");
            }
            "toml" => {
                let name = text.lines().next().unwrap().trim_start_matches("name = ").trim_matches('"').to_string();
                assert_eq!(text, fs::read_to_string(root.join(format!("examples/effects.d/{name}/effect.toml"))).unwrap());
                let folder = place.0.join("effects.d").join(&name);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("effect.toml"), text).unwrap();
                declared.push(name);
            }
            _ => {}
        }
    }
    assert_eq!(declared, ["spotlight", "relief", "faces"]);
    for made in ["spotlight.png", "relief.png", "deep.png"] {
        assert!(fs::read(place.0.join(made)).unwrap().starts_with(b"\x89PNG"), "{made}");
    }
}
