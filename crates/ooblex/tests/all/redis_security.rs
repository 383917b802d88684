//! Tests of a shared Redis: gateways and workers are protected from each other and from other
//! clients. They cover users with few rights, client certificates, huge values, and failover.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{FIVE_SECONDS, Gateway, RedisServer, TWO_SECONDS, WITHIN, Worker, delayed, farm, temporary_folder};
use redis::Value;

const START: &str = include_str!("../../../../deploy/redis/start.sh");
const SCALING: &str = include_str!("../../../../docs/scaling.md");

// Users

/// Returns the rights of a user in deploy/redis: patterns of keys and channels, and commands.
fn rights(user: &str) -> Vec<String> {
    let line = START.lines().find(|line| line.starts_with(&format!("user {user} reset on >$"))).unwrap();
    line.split_whitespace().skip(5).map(str::to_string).collect()
}

/// Creates a Redis user with a password and only these rights.
fn allow(redis: &RedisServer, user: &str, rights: &[String]) {
    let password = format!(">{user}-secret");
    let words = ["ACL", "SETUSER", user, "reset", "on", &password].into_iter().chain(rights.iter().map(String::as_str));
    redis.command(&words.collect::<Vec<_>>());
}

fn address(redis: &RedisServer, user: &str) -> String {
    redis.url_of(user, &format!("{user}-secret"))
}

fn assert_nothing_refused(redis: &RedisServer) {
    assert_eq!(redis.command(&["ACL", "LOG"]), Value::Array(Vec::new()), "somebody asked for more than it may");
}

#[test]
fn gateway_and_worker_need_no_more_rights_than_their_users_have() {
    let redis = RedisServer::start();
    ["gateway", "worker"].into_iter().for_each(|user| allow(&redis, user, &rights(user)));
    let both: Vec<_> = rights("gateway")
        .into_iter()
        .filter(|right| right != "-@all")
        .chain(rights("worker").into_iter().filter(|right| right != "-@all"))
        .collect();
    allow(&redis, "both", &both);
    redis.command(&["ACL", "SETUSER", "default", "off"]);
    redis.command(&["ACL", "LOG", "RESET"]);
    {
        let gateway = Gateway::at(&format!("{}/3", address(&redis, "gateway")));
        let mut worker = Worker::at(&format!("{}/3", address(&redis, "worker")));
        gateway.wait_for_workers(1);
        let mut player = delayed(&gateway, 20);
        player.play_until_processed(20, 300);
        player.assert_sound();
        assert_eq!([gateway.metric("ooblex_broker_errors_total"), worker.metric("ooblex_broker_errors_total")], [0.0; 2]);
        // The frames of an effect without workers remain queued, and are removed when the session
        // ends.
        worker.signal(rustix::process::Signal::TERM);
        assert!(worker.ended().success());
        player.play_some(5);
        player.client.close().unwrap();
        gateway.wait("the session to end", |gateway| gateway.metric("ooblex_sessions") == 0.0);
    }
    assert_nothing_refused(&redis);
    // A gateway with built-in workers needs the rights of both.
    {
        let flags = ["--broker", &address(&redis, "both"), "--workers", "1", "--effects", "delay", "--effect", "delay"];
        let gateway = Gateway::start("[diagnostics]\neffects = true\n", &flags);
        gateway.wait_for_workers(1);
        delayed(&gateway, 20).play_until_processed(10, 300);
    }
    assert_nothing_refused(&redis);
}

#[test]
fn documents_and_deployment_give_the_same_rights() {
    for user in ["gateway", "worker"] {
        let line = format!("ACL SETUSER {user} reset on >secret {}", rights(user).join(" "));
        assert!(SCALING.contains(&line), "docs/scaling.md lacks the line\n{line}");
    }
}

#[test]
fn worker_reads_no_results_and_passes_for_no_gateway() {
    let (redis, gateway, _workers) = farm(1);
    ["gateway", "worker"].into_iter().for_each(|user| allow(&redis, user, &rights(user)));
    delayed(&gateway, 20).play_until_processed(5, 300);
    let refused = |user: &str, words: &[&str]| {
        let mut connection = redis::Client::open(address(&redis, user)).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(*word));
        let said = command.query::<Value>(&mut connection).map(|value| format!("{value:?}")).unwrap_or_else(|error| error.to_string());
        ["NOPERM", "NoPerm", "permission", "can't access"].iter().any(|word| said.contains(word))
    };
    let id = redis.keys(0, "ooblex:gateway:*")[0].rsplit(':').next().unwrap().to_string();
    let results = format!("ooblex:v3:processed_frames:{id}");
    let announced = format!("ooblex:gateway:{id}");
    for words in [
        &["LRANGE", &results, "0", "-1"][..],
        &["LPOP", &results],
        &["BLPOP", &results, "1"],
        &["EVAL", "return redis.call('LPOP', ARGV[1])", "0", &results],
        &["SET", &announced, "{}"],
        &["DEL", &announced],
        &["SET", "ooblex:v3:next:0", "frame"],
        &["SET", "another-program", "x"],
        &["PUBLISH", "another-channel", "x"],
        &["SUBSCRIBE", "another-channel"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["MONITOR"],
        &["CONFIG", "GET", "*"],
        &["CLIENT", "LIST"],
        &["ACL", "LIST"],
        &["FLUSHALL"],
        &["SHUTDOWN"],
        &["REPLICAOF", "NO", "ONE"],
    ] {
        assert!(refused("worker", words), "a worker may {words:?}");
    }
    for words in [
        &["GETDEL", "ooblex:v3:frame:delay:0:0"][..],
        &["GET", "ooblex:v3:frame:delay:0:0"],
        &["EVAL", "return redis.call('RENAME', ARGV[1], ARGV[2])", "0", "ooblex:v3:frame:delay:0:0", "ooblex:v3:next:0"],
        &["SET", "ooblex:worker:0", "{}"],
        &["RPUSH", "ooblex:v3:wake:0", "1"],
        &["GET", &announced],
        &["KEYS", "*"],
        &["FLUSHALL"],
    ] {
        assert!(refused("gateway", words), "a gateway may {words:?}");
    }
    assert!(!refused("worker", &["RPUSH", &results, "noise"]), "the test can tell");
    assert!(!refused("gateway", &["DEL", &results]), "the test can tell");
}

// Huge values

/// Returns the peak memory of a process in bytes.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn values_of_any_size_are_not_read() {
    const HUGE: usize = 120 << 20;
    // Redis itself buffers no more than this for a subscriber.
    const LOUD: usize = 20 << 20;
    const MOST: u64 = 80 << 20;
    let (redis, gateway, workers) = farm(1);
    let worker = &workers[0];
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(20, 300);
    let before = [peak(gateway.id()), peak(worker.id())];
    let id = redis.keys(0, "ooblex:gateway:*")[0].rsplit(':').next().unwrap().to_string();
    let malformed = || gateway.broker_errors("malformed") + worker.metric_of("ooblex_broker_errors_total", "kind=\"malformed\"");
    let results = format!("ooblex:v3:processed_frames:{id}");
    for (what, command, key, size, then) in [
        ("a result", "RPUSH", results.as_str(), HUGE, None),
        ("a frame", "SET", "ooblex:v3:frame:delay:0:1", HUGE, Some(["LPUSH", "ooblex:v3:frames_to_process:delay", "0:1"])),
        ("a turn", "LPUSH", "ooblex:v3:frames_to_process:delay", HUGE, None),
        ("an announcement", "PUBLISH", "ooblex:announcements:0", LOUD, None),
    ] {
        let counted = malformed();
        // On a busy machine, Redis may need longer than its clients' timeout, and then return the
        // value to a closed connection. A huge turn that is discarded within Redis is not counted.
        let mut tries = 0;
        while malformed() == counted && (what != "a turn" || tries == 0) {
            assert!(tries < 10, "{what} is not counted");
            tries += 1;
            let mut connection = redis.connect().unwrap();
            connection.set_read_timeout(Some(WITHIN)).unwrap();
            let (): () = redis::cmd(command).arg(key).arg(vec![b'x'; size]).query(&mut connection).unwrap();
            then.iter().for_each(|then| _ = redis.command(then));
            (0..20).filter(|_| malformed() == counted).for_each(|_| player.play_some(5));
        }
        player.play_until_processed(10, 2 * FIVE_SECONDS);
        let grown =
            [gateway.id(), worker.id()].map(peak).into_iter().zip(before).map(|(now, before)| now.saturating_sub(before)).max().unwrap();
        assert!(grown < MOST, "{what} of {} MiB has taken {} MiB", HUGE >> 20, grown >> 20);
    }
    player.assert_sound();
    assert!(!redis.keys(0, "*").iter().any(|key| key.ends_with(":0:1")), "what is too long is taken away");
}

// Client certificates

/// Creates a folder with the certificate of an authority (`ca.crt`), and with certificates that it
/// has signed for a Redis at 127.0.0.1 and for a client.
fn authority(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc";
    let mut commands = vec![format!("req -x509 {key} -days 2 -subj /CN={name} -keyout ca.key -out ca.crt")];
    for owner in ["redis", "client"] {
        commands.push(format!("req {key} -subj /CN={owner} -keyout {owner}.key -out {owner}.csr"));
        commands
            .push(format!("x509 -req -in {owner}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {owner}.crt"));
    }
    for command in commands {
        let output = Command::new("openssl").args(command.split(' ')).current_dir(&folder).output();
        let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): tools/install-packages.sh test"));
        assert!(output.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    folder
}

#[test]
fn redis_that_asks_for_client_certificates_is_shown_one() {
    let folder = temporary_folder();
    let [ours, theirs] = ["ours", "theirs"].map(|name| authority(&folder, name));
    let redis = RedisServer::with_client_certificates(&ours);
    let trusting = format!("[broker]\nca_file = {:?}\n", ours.join("ca.crt"));
    let showing = |certificate: PathBuf, key: PathBuf| format!("{trusting}client_certificate = {certificate:?}\nclient_key = {key:?}\n");

    let config = showing(ours.join("client.crt"), ours.join("client.key"));
    {
        let gateway = Gateway::configured(&config, &redis.url());
        let _worker = Worker::configured(&config, "delay", &redis.url());
        gateway.wait_for_workers(1);
        let mut player = delayed(&gateway, 20);
        player.play_until_processed(20, 300);
        player.assert_sound();
        assert_eq!(gateway.metric("ooblex_broker_errors_total"), 0.0);
    }

    let not_encrypted = ["broker.client_key", "not be encrypted"];
    for (config, words) in [
        (trusting.clone(), &["wants a client certificate", "broker.client_certificate", "broker.client_key", "127.0.0.1"][..]),
        (showing(theirs.join("client.crt"), theirs.join("client.key")), &["refuses our side of TLS", "broker.client_certificate"]),
        (showing(ours.join("nowhere.crt"), ours.join("client.key")), &["broker.client_certificate", "nowhere.crt", "PEM"]),
        (showing(ours.join("client.crt"), ours.join("nowhere.key")), &["broker.client_key", "nowhere.key", "PEM"]),
        (showing(ours.join("client.crt"), ours.join("client.crt")), &not_encrypted),
        (showing(ours.join("client.crt"), theirs.join("client.key")), &["broker.client_key", "does not belong"]),
    ] {
        let file = folder.join("other.toml");
        std::fs::write(&file, &config).unwrap();
        let flags = ["--broker", &redis.url(), "--config", file.to_str().unwrap()];
        for said in [Gateway::refuse(&flags), Worker::refuse("", &flags)] {
            assert!(words.iter().all(|word| said.contains(word)) && !said.contains("firewall"), "{config}: {said}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

// Sentinel

/// A Redis Sentinel process.
struct Sentinel {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Sentinel {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;

    /// Starts a Sentinel that monitors `master` under the name `video`, with a quorum of one.
    fn watching(master: &RedisServer) -> Self {
        (0..20)
            .find_map(|_| Self::try_start(rand::random_range(Self::PORTS), master.port()))
            .expect("a Sentinel starts on one of twenty ports")
    }

    fn try_start(port: u16, master: u16) -> Option<Self> {
        let folder = temporary_folder();
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndaemonize no\ndir {}\nsentinel monitor video 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds video 700\nsentinel failover-timeout video 4000\n",
            folder.display()
        );
        std::fs::write(folder.join("sentinel.conf"), config).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(folder.join("sentinel.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process =
            command.spawn().unwrap_or_else(|error| panic!("redis-sentinel cannot be run ({error}): tools/install-packages.sh test"));
        let mut sentinel = Self { process, folder, port };
        let deadline = Instant::now() + WITHIN;
        while sentinel.ask(&["SENTINEL", "MASTERS"]).is_none() {
            if sentinel.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "the Sentinel does not answer");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Some(sentinel)
    }

    fn ask(&self, words: &[&str]) -> Option<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok()?;
        words[1..].iter().fold(&mut redis::cmd(words[0]), |command, word| command.arg(*word)).query(&mut connection).ok()
    }

    /// Returns the port of the master that the Sentinel reports.
    fn master(&self) -> Option<u16> {
        let answer = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "video"])?;
        let (_, port): (String, u16) = redis::from_redis_value(answer).ok()?;
        Some(port)
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !holds(self) {
            assert!(Instant::now() < deadline, "timeout while waiting for: {what}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn wait_for_replica(&self) {
        // The Sentinel reports this as the state of the replica's link to the master.
        self.wait("the Sentinel to know a replica that is in step", |sentinel| {
            sentinel.ask(&["SENTINEL", "REPLICAS", "video"]).is_some_and(|replicas| has(&replicas, "ok"))
        });
    }
}

/// Returns whether a text occurs anywhere in an answer.
fn has(answer: &Value, text: &str) -> bool {
    match answer {
        Value::Array(parts) => parts.iter().any(|part| has(part, text)),
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        _ => false,
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Camera frames of half a minute. A Sentinel needs some seconds to detect a failed master and to
/// promote a replica.
const HALF_A_MINUTE: usize = 900;

#[test]
fn sessions_live_through_failovers_of_sentinel() {
    let first = RedisServer::start();
    let mut second = RedisServer::with(&["--replicaof", "127.0.0.1", &first.port().to_string()]);
    let sentinel = Sentinel::watching(&first);
    sentinel.wait_for_replica();
    // The first Sentinel in the list is unreachable.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/video/2", sentinel.port);
    let (gateway, worker) = (Gateway::at(&url), Worker::at(&url));
    gateway.wait_for_workers(1);
    assert!(!first.keys(2, "ooblex:*").is_empty(), "frames go through the master");
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(20, 300);

    // Planned failover: both servers keep running, and the former master refuses writes.
    assert!(sentinel.ask(&["SENTINEL", "FAILOVER", "video"]).is_some());
    player.play_until_told(HALF_A_MINUTE, "the other to be master", |_| sentinel.master() == Some(second.port()));
    player.play_until_told(HALF_A_MINUTE, "the old master to follow the new one", |_| info(&first).contains("master_link_status:up"));
    player.play_until_processed(30, HALF_A_MINUTE);
    gateway.wait("it to be ready", |gateway| gateway.answer("/readyz").0 == 200);

    // The new master dies, and the old one takes over again.
    let since = player.messages.len();
    second.kill();
    player.play_until_told(HALF_A_MINUTE, "the outage to be told of", |player| player.told_service(since, "broker_down"));
    let (status, body) = gateway.answer("/readyz");
    assert!(status == 503 && body.contains("Redis") && !body.contains("127.0.0.1"), "{status} {body}");
    player.play_until_told(HALF_A_MINUTE, "the first to be master again", |_| sentinel.master() == Some(first.port()));
    player.play_until_processed(30, HALF_A_MINUTE);
    player.play_until_told(TWO_SECONDS, "the end of the outage", |player| player.told_service(since, "served"));
    player.assert_sound();
    gateway.wait("it to be ready again", |gateway| gateway.answer("/readyz").0 == 200);
    assert_eq!([gateway.metric("ooblex_broker_connected"), worker.metric("ooblex_broker_connected")], [1.0; 2]);
}

fn info(redis: &RedisServer) -> String {
    let mut connection = redis.connect().unwrap();
    redis::cmd("INFO").arg("replication").query(&mut connection).unwrap()
}

#[test]
fn sentinels_that_do_not_know_the_master_are_told_of_by_name() {
    let redis = RedisServer::start();
    let sentinel = Sentinel::watching(&redis);
    let url = format!("redis+sentinel://127.0.0.1:{}/films", sentinel.port);
    let output = Command::new(env!("CARGO_BIN_EXE_ooblex"))
        .args(["check", "--broker", &url, "--listen", "127.0.0.1:0", "--media", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("films") && said.contains("Sentinel"), "{said}");
}
