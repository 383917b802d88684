//! A real Redis on a unix socket, in its own process, which ends when the value is dropped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ooblex_broker::{Broker, Identity, RedisOptions};

pub struct RedisServer {
    process: Child,
    folder: PathBuf,
}

impl RedisServer {
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("ooblex-broker-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--unixsocket"])
            .arg(folder.join("socket"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = spawned.unwrap_or_else(|error| panic!("redis-server cannot be run ({error}): tools/install-packages.sh test"));
        let server = Self { process, folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !server.answers() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        server
    }

    /// Creates a broker on this Redis.
    pub fn broker(&self, prefix: &str) -> Broker {
        let identity = Identity { host: "test".into(), version: "0".into(), device: "cpu".into() };
        let url = self.url().parse().unwrap();
        Broker::redis(RedisOptions { url, prefix: prefix.into(), ca_file: None, client_certificate: None, identity }).unwrap()
    }

    /// Executes a command, such as `["GET", "key"]`.
    pub fn command(&self, words: &[&[u8]]) -> redis::Value {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let command = words[1..].iter().fold(redis::cmd(std::str::from_utf8(words[0]).unwrap()), |mut command, word| {
            command.arg(*word);
            command
        });
        command.query(&mut connection).unwrap()
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("socket").display())
    }

    fn answers(&self) -> bool {
        redis::Client::open(self.url()).and_then(|client| client.get_connection()).is_ok()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}
