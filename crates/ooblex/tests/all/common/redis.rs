//! A Redis server process, ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, Value};
use rustix::process::{Pid, Signal, kill_process};

use super::{WITHIN, machine, temporary_folder};

/// Ports outside Linux's ephemeral range, so that no other program is given the port while its
/// Redis is stopped.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// User with all rights, by which tests inspect Redis independently of other users.
const ADMIN: &str = "test-admin";
const ADMIN_PASSWORD: &str = "only-the-tests-know";

/// Name of the unix socket.
const SOCKET: &str = "redis.sock";

/// A redis-server without persistence.
pub struct RedisServer {
    process: Child,
    place: Place,
    options: Vec<String>,
    folder: PathBuf,
    _machine: machine::Share,
}

#[derive(Clone, Copy)]
enum Place {
    Port(u16),
    Tls(u16),
    Socket,
}

impl RedisServer {
    /// Starts a Redis without authentication.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a Redis with options such as `["--requirepass", "secret"]`.
    pub fn with(options: &[&str]) -> Self {
        Self::on_a_free_port(Place::Port, options)
    }

    /// Starts a Redis that accepts only TLS, with `redis.crt` and `redis.key` of this folder.
    pub fn with_tls(certificates: &Path) -> Self {
        let [certificate, key] = ["redis.crt", "redis.key"].map(|name| certificates.join(name).to_str().unwrap().to_string());
        let options =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"];
        Self::on_a_free_port(Place::Tls, &options)
    }

    /// Starts a Redis that accepts only TLS with a client certificate signed by the authority
    /// `ca.crt` of this folder.
    pub fn with_client_certificates(certificates: &Path) -> Self {
        let [certificate, key, authority] =
            ["redis.crt", "redis.key", "ca.crt"].map(|name| certificates.join(name).to_str().unwrap().to_string());
        let options =
            ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &authority, "--tls-auth-clients", "yes"];
        Self::on_a_free_port(Place::Tls, &options)
    }

    /// Starts a Redis that only listens on a unix socket.
    pub fn on_a_socket() -> Self {
        Self::try_start(Place::Socket, &[]).expect("redis-server starts")
    }

    fn on_a_free_port(place: impl Fn(u16) -> Place, options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| option.to_string()).collect();
        let attempts = (0..20).map(|_| place(rand::random_range(PORTS)));
        attempts.filter_map(|place| Self::try_start(place, &options)).next().expect("redis-server starts on one of twenty ports")
    }

    /// Tries to start a Redis; `None` if the port is taken.
    fn try_start(place: Place, options: &[String]) -> Option<Self> {
        let machine = machine::share();
        let folder = temporary_folder();
        let process = spawn(place, options, &folder);
        let mut server = Self { process, place, options: options.to_vec(), folder, _machine: machine };
        server.answers().then_some(server)
    }

    /// Waits until the server answers. Returns `false` if it has exited instead.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + WITHIN;
        loop {
            let id = i64::from(self.id());
            if let Ok(mut connection) = self.connect() {
                let info: String = redis::cmd("INFO").arg("server").query(&mut connection).unwrap_or_default();
                // The process id excludes another program's Redis on the same port.
                if info.contains(&format!("process_id:{id}\r\n")) {
                    return true;
                }
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Returns the address without user and password.
    pub fn url(&self) -> String {
        match self.place {
            Place::Port(port) => format!("redis://127.0.0.1:{port}"),
            Place::Tls(port) => format!("rediss://127.0.0.1:{port}"),
            Place::Socket => format!("redis+unix://{}", self.folder.join(SOCKET).display()),
        }
    }

    /// Returns the address with a user and a password.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        match self.place {
            Place::Port(port) => format!("redis://{user}:{password}@127.0.0.1:{port}"),
            Place::Tls(port) => format!("rediss://{user}:{password}@127.0.0.1:{port}"),
            Place::Socket => format!("{}?user={user}&pass={password}", self.url()),
        }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        match self.place {
            Place::Port(port) | Place::Tls(port) => port,
            Place::Socket => panic!("it has no port"),
        }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the server, as in a crash; its contents are lost.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Restarts the server at the same address, with no contents.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.place, &self.options, &self.folder);
        assert!(self.answers(), "redis-server starts again where it was");
    }

    /// Suspends the server: it accepts connections but does not answer, until
    /// [`RedisServer::thaw`].
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
    }

    /// Executes a command as the test user, such as `["CONFIG", "SET", "maxmemory", "1"]`.
    pub fn command(&self, words: &[&str]) -> Value {
        let mut connection = self.connect().expect("Redis is there");
        words[1..].iter().fold(&mut redis::cmd(words[0]), |command, word| command.arg(*word)).query(&mut connection).unwrap()
    }

    /// Returns the names of all keys in a database that match the pattern.
    pub fn keys(&self, database: i64, pattern: &str) -> Vec<String> {
        let mut connection = self.connect().expect("Redis is there");
        let (): () = redis::cmd("SELECT").arg(database).query(&mut connection).unwrap();
        redis::cmd("KEYS").arg(pattern).query(&mut connection).unwrap()
    }

    /// Returns the memory in use, in bytes.
    pub fn memory(&self) -> u64 {
        let mut connection = self.connect().expect("Redis is there");
        let info: String = redis::cmd("INFO").arg("memory").query(&mut connection).unwrap();
        info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap()
    }

    /// Connects as the test user over the unix socket, independently of the connections under test.
    pub fn connect(&self) -> redis::RedisResult<Connection> {
        let url = format!("redis+unix://{}?user={ADMIN}&pass={ADMIN_PASSWORD}", self.folder.join(SOCKET).display());
        redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(1))
    }
}

fn spawn(place: Place, options: &[String], folder: &Path) -> Child {
    let mut command = Command::new("redis-server");
    match place {
        Place::Port(port) => command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]),
        Place::Tls(port) => command.args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string()]),
        Place::Socket => command.args(["--port", "0"]),
    };
    let admin = ["--user", ADMIN, "on", &format!(">{ADMIN_PASSWORD}"), "~*", "&*", "+@all"];
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(folder);
    command.arg("--unixsocket").arg(folder.join(SOCKET)).args(admin).args(options);
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let spawned = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn();
    spawned.unwrap_or_else(|error| panic!("redis-server cannot be run ({error}): tools/install-packages.sh test"))
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}
