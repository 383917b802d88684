//! Tests of the connections to Redis (unix socket, users with few rights, TLS), and of foreign
//! contents of a Redis: other versions, keys of other programs, and noise.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Gateway, RedisServer, TWO_SECONDS, Worker, delayed, farm, temporary_folder};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use serde_json::json;

/// Rights of one Redis user for both gateways and workers, in terms that Redis 6.2 supports:
/// commands on all keys and channels with the prefix. `redis_security.rs` tests the users that
/// docs/scaling.md recommends.
const RIGHTS: &str = "+select +ping +eval +set +getdel +del +exists +type +strlen +rename +pttl +pexpire +rpush +lpop +blpop +lpos +lrem +ltrim +llen \
     +publish +subscribe";

/// Checks that a gateway and a worker work together through this Redis.
fn works(url: &str, config: &str) {
    let gateway = Gateway::configured(config, url);
    let worker = Worker::configured(config, "delay", url);
    gateway.wait_for_workers(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(20, 300);
    player.assert_sound();
    assert!(worker.analysed("delay") >= 20.0);
    assert_eq!(gateway.metric("ooblex_broker_errors_total"), 0.0);
}

#[test]
fn a_user_with_few_rights_on_a_socket_in_a_database_of_its_own() {
    let redis = RedisServer::on_a_socket();
    let user = format!("on >pass-word ~video:* &video:* -@all {RIGHTS}");
    redis.command(&["ACL", "SETUSER", "ooblex"].into_iter().chain(user.split_whitespace()).collect::<Vec<_>>());
    redis.command(&["ACL", "SETUSER", "default", "off"]);
    redis.command(&["ACL", "LOG", "RESET"]);
    let url = format!("{}&db=3", redis.url_of("ooblex", "pass-word"));
    works(&url, "[broker]\nprefix = \"video:\"\n");
    let refused = redis.command(&["ACL", "LOG"]);
    assert_eq!(refused, redis::Value::Array(Vec::new()), "it asked for more than it may");
    assert_eq!(redis.keys(0, "*"), [""; 0], "database 0 is not its own");
}

#[test]
fn a_wrong_password_or_too_few_rights_are_told_at_start_without_the_password() {
    let redis = RedisServer::start();
    let grant = |words: &str| redis.command(&["ACL", "SETUSER"].into_iter().chain(words.split_whitespace()).collect::<Vec<_>>());
    grant("gate on >right-secret ~* &* +@all");
    let place = redis.url().trim_start_matches("redis://").to_string();
    let url = redis.url_of("gate", "wrong-secret");
    for said in [Gateway::refuse(&["--broker", &url]), Worker::refuse("", &["--broker", &url, "--effects", "background_blur"])] {
        assert!(said.contains("gate") && said.contains(&place) && said.contains("password"), "{said}");
        assert!(!said.contains("wrong-secret"), "{said}");
    }
    // The password can also be in a file.
    let folder = temporary_folder();
    let file = folder.join("password");
    let config = format!("[broker]\npassword_file = \"{}\"\n", file.display());
    let url = format!("redis://gate@{place}");
    std::fs::write(&file, "right-secret\n").unwrap();
    works(&url, &config);
    for content in [Some(""), Some("\n"), None] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let said = Worker::refuse(&config, &["--broker", &url]);
        assert!(said.contains("password_file") && said.contains(file.to_str().unwrap()), "{said}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn check_says_whether_redis_is_there_and_who_works_and_never_the_password() {
    let mut redis = RedisServer::with(&["--requirepass", "open-sesame-7391"]);
    let url = redis.url_of("", "open-sesame-7391");
    let check = |arguments: &[&str]| {
        let command = ["check", "--broker", &url, "--listen", "127.0.0.1:0", "--media", "127.0.0.1:0"];
        let output = Command::new(env!("CARGO_BIN_EXE_ooblex")).args(command).args(arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("open-sesame-7391"), "{said}");
        (output.status.success(), said)
    };
    let (good, printed) = check(&["--print"]);
    assert!(good && printed.contains("***"), "{printed}");
    let (good, said) = check(&[]);
    assert!(good && said.contains("127.0.0.1") && said.contains("no worker"), "{said}");
    {
        let _worker = Worker::serving("background_blur", &url);
        let (good, said) = check(&[]);
        assert!(good && said.contains("background_blur"), "{said}");
    }
    redis.kill();
    let (good, said) = check(&[]);
    assert!(!good && said.contains("Redis"), "{said}");
}

#[test]
fn over_tls_redis_must_be_who_it_says_it_is() {
    let folder = temporary_folder();
    let [ours, theirs] = ["ours", "theirs"].map(|name| authority(&folder, name));
    let redis = RedisServer::with_tls(&ours);
    let trusting = |authority: &Path| format!("[broker]\nca_file = \"{}\"\n", authority.join("ca.crt").display());
    works(&redis.url(), &trusting(&ours));
    for (config, words) in [
        (trusting(&theirs), &["certificate", "not trusted", "ca_file", "127.0.0.1"][..]),
        // Without ca_file, the authorities that the system trusts are used.
        (String::new(), &["certificate", "not trusted", "ca_file"]),
        (trusting(Path::new("/nowhere")), &["ca_file", "/nowhere/ca.crt"]),
    ] {
        let file = folder.join("other.toml");
        std::fs::write(&file, &config).unwrap();
        let flags = ["--broker", &redis.url(), "--config", file.to_str().unwrap()];
        for said in [Gateway::refuse(&flags), Worker::refuse("", &flags)] {
            assert!(words.iter().all(|word| said.contains(word)), "{config:?}: {said}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Creates a folder with the certificate of an authority (`ca.crt`), and with a certificate that it
/// has signed for a Redis at 127.0.0.1.
fn authority(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc";
    for command in [
        &format!("req -x509 {key} -days 2 -subj /CN={name} -keyout ca.key -out ca.crt"),
        &format!("req {key} -subj /CN=redis -keyout redis.key -out redis.csr"),
        "x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.crt",
    ] {
        let output = Command::new("openssl").args(command.split(' ')).current_dir(&folder).output();
        let output = output.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): tools/install-packages.sh test"));
        assert!(output.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    folder
}

// Foreign contents of a Redis

#[test]
fn a_worker_of_another_version_is_named_and_is_no_capacity() {
    let (redis, gateway, _) = farm(0);
    let announcement = json!({
        "id": "00000000000000aa", "wire": 99, "version": "9.9.9", "host": "elsewhere", "device": "cpu",
        "gateway": false, "threads": 4, "effects": ["delay"], "busy_us": 0,
    });
    let announcement = announcement.to_string();
    let announce = || {
        redis.command(&["SET", "ooblex:worker:00000000000000aa", &announcement, "PX", "700"]);
        redis.command(&["PUBLISH", "ooblex:announcements:0", &announcement]);
    };
    gateway.wait("the worker to be noticed", |gateway| {
        announce();
        gateway.metric("ooblex_broker_strangers") == 1.0
    });
    assert_eq!(gateway.metric("ooblex_workers"), 0.0);
    gateway.wait("it to be named in the log", |gateway| gateway.said().contains("9.9.9") && gateway.said().contains("elsewhere"));
    gateway.wait("the worker to be forgotten", |gateway| gateway.metric("ooblex_broker_strangers") == 0.0);
}

#[test]
fn noise_in_redis_is_counted_and_stops_nothing() {
    let (redis, gateway, workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    let mut random = SmallRng::seed_from_u64(5);
    let mut connection = redis.connect().unwrap();
    let malformed = || gateway.broker_errors("malformed");
    let malformed_at_worker = || workers[0].metric_of("ooblex_broker_errors_total", "kind=\"malformed\"");
    let other_version = b"OB\x09J\x01\x02\x03".to_vec();
    let mut noise = |length: usize| {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        bytes
    };
    for round in 0..30 {
        let bytes = if round % 2 == 0 { other_version.clone() } else { noise(200) };
        // Frame slots are emptied as soon as they are filled, so each noise frame gets a turn that
        // leads to it.
        let gateways = redis.keys(0, "ooblex:gateway:*");
        let turn = format!("{}:{:016x}", gateways[0].rsplit(':').next().unwrap(), 0xabcd_u64 + round);
        let results = format!("ooblex:v3:processed_frames:{}", gateways[0].rsplit(':').next().unwrap());
        let (): () = redis::pipe()
            .set(format!("ooblex:v3:frame:delay:{turn}"), &bytes)
            .rpush("ooblex:v3:frames_to_process:delay", &turn)
            .rpush("ooblex:v3:frames_to_process:delay", &bytes)
            .rpush("ooblex:v3:frames_to_process:delay", "nobody:nothing")
            .rpush(&results, &bytes)
            .publish("ooblex:announcements:0", &bytes)
            .set("ooblex:worker:00000000000000bb", &bytes)
            .ignore()
            .query(&mut connection)
            .unwrap();
        player.play_some(3);
    }
    player.play_until_told(TWO_SECONDS, "the noise to be counted", |_| malformed() >= 10.0 && malformed_at_worker() >= 10.0);
    player.play_until_processed(20, 2 * TWO_SECONDS);
    player.assert_sound();
    assert_eq!(gateway.metric("ooblex_workers"), 1.0);
    gateway
        .wait("the other version to be named", |gateway| gateway.said().contains("version 9") || workers[0].said().contains("version 9"));
}

#[test]
fn keys_of_the_wrong_type_are_put_right() {
    let (redis, gateway, _workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    let gateways = redis.keys(0, "ooblex:gateway:*");
    let id = gateways[0].rsplit(':').next().unwrap();
    for key in ["ooblex:v3:frames_to_process:delay".to_string(), format!("ooblex:v3:processed_frames:{id}")] {
        redis.command(&["SET", &key, "not a list"]);
        player.play_until_processed(10, 3 * TWO_SECONDS);
    }
    redis.command(&["DEL", &gateways[0]]);
    redis.command(&["HSET", &gateways[0], "not", "a string"]);
    player.play_until_processed(20, 3 * TWO_SECONDS);
    player.assert_sound();
}

/// A turn that was lost with its worker between two steps is queued again, although its frame slot
/// is refilled in the meantime.
#[test]
fn a_turn_that_was_lost_is_queued_again() {
    let (redis, gateway, _workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    for _ in 0..10 {
        redis.command(&["DEL", "ooblex:v3:frames_to_process:delay"]);
        player.play_until_processed(3, TWO_SECONDS);
    }
    player.assert_sound();
}
