//! HTTP with other servers: an offer and its answer, and the end of a session.
//!
//! Every URL that is called, from the operator or from the other server, is within `rooms.peers`.
//! Answers are bounded in size and time. Tokens are neither logged nor part of an error, and another
//! origin than that of the operator's URL does not get them.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::debug;
use ureq::http::Response;
use ureq::tls::Certificate;
use ureq::{Agent, Body};

use super::link::Target;
use crate::outgoing;
use ooblex_config::{PeerUrl, Rooms, Secret};
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of concurrent requests to all other servers; others wait.
const MAX_REQUESTS: usize = 16;
/// Largest number of redirects of one offer.
const MAX_REDIRECTS: usize = 3;
/// Size of an error's body up to which its text is shown, bytes.
const MAX_ERROR_BYTES: u64 = 4096;
/// Largest part of an error's body that is shown, characters.
const MAX_SHOWN_CHARS: usize = 300;
/// Largest part of a wrong content type that is shown, characters.
const MAX_SHOWN_TYPE_CHARS: usize = 80;
/// Shortest value in a query that is hidden, characters. The text would make no sense without shorter
/// ones.
const MIN_HIDDEN_CHARS: usize = 4;
/// Content type of offers and answers.
const SDP: &str = "application/sdp";

/// The client of other servers.
pub(crate) struct Exchange {
    agent: Agent,
    turns: Arc<Semaphore>,
    rules: Arc<Rules>,
}

struct Rules {
    rooms: Rooms,
    sdp_kib: usize,
}

/// The answer of another server to an offer.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) answer: String,
    pub(crate) session: RemoteSession,
}

/// A session as the other server knows it.
#[derive(Debug, Clone)]
pub(crate) struct RemoteSession {
    url: PeerUrl,
    /// The token with which the offer was accepted.
    token: Option<Secret>,
}

/// Why an attempt has failed, in words for the operator, and when the next one makes sense.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) detail: String,
    pub(crate) retry: Retry,
}

/// When an attempt makes sense after a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The room of this gateway was not ready, and nobody was called.
    Soon,
    /// After a time that grows, and at least this one.
    Later(Duration),
}

impl Failure {
    /// A failure after which the time until the next attempt grows.
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), retry: Retry::Later(Duration::ZERO) }
    }
}

impl Exchange {
    pub(super) fn new(rooms: Rooms, sdp_kib: usize, authorities: Vec<Certificate<'static>>) -> Self {
        let agent = outgoing::agent_with(TIMEOUT, authorities);
        Self { agent, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), rules: Arc::new(Rules { rooms, sdp_kib }) }
    }

    /// Checks that a URL may be called.
    ///
    /// # Errors
    /// When it is not within `rooms.peers`.
    pub(super) fn check(&self, url: &PeerUrl) -> Result<(), Problem> {
        let detail = || {
            format!(
                "{url} is not within rooms.peers, the addresses that this gateway may call: add its prefix there, such as \
                 \"https://media.example/live/\""
            )
        };
        if self.rules.rooms.allows(url) { Ok(()) } else { Err(Problem::new(ProblemKind::Forbidden, detail())) }
    }

    /// Sends an offer.
    ///
    /// # Errors
    /// When the other server cannot be reached, refuses, or answers with something else than SDP.
    pub(crate) async fn offer(&self, target: Target, offer: String) -> Result<Accepted, Failure> {
        let (agent, rules) = (self.agent.clone(), self.rules.clone());
        self.blocking(move || rules.offer(&agent, &target, &offer)).await?
    }

    /// Ends a session. The other server may have forgotten it.
    pub(crate) async fn end(&self, session: RemoteSession) {
        let agent = self.agent.clone();
        _ = self.blocking(move || delete(&agent, &session)).await;
    }

    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let busy = || Failure::new("too many requests to other servers wait for their answers");
        let turn = tokio::time::timeout(TIMEOUT, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let acted = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            act()
        });
        acted.await.map_err(|_| Failure::new("the request has failed: the log says why"))
    }
}

impl Rules {
    fn offer(&self, agent: &Agent, target: &Target, offer: &str) -> Result<Accepted, Failure> {
        let mut secrets = Secrets::of(&target.url, target.token.as_ref());
        let accepted = self.follow(agent, target.clone(), offer, &mut secrets);
        accepted.map_err(|Failure { detail, retry }| Failure { detail: secrets.hide(&detail), retry })
    }

    /// Sends an offer, also to where the other server redirects it.
    fn follow(&self, agent: &Agent, target: Target, offer: &str, secrets: &mut Secrets) -> Result<Accepted, Failure> {
        let Target { mut url, mut token } = target;
        for _ in 0..=MAX_REDIRECTS {
            let request = agent.post(url.as_str()).header("content-type", SDP).header("accept", SDP);
            let request = match &token {
                Some(token) => request.header("authorization", bearer(token)),
                None => request,
            };
            let response = request.send(offer).map_err(|error| Failure::new(format!("the other server can not be reached: {error}")))?;
            match response.status().as_u16() {
                201 => return self.accepted(agent, &url, token, response, secrets),
                307 | 308 => {
                    let next = self.redirected(&url, header(&response, "location"))?;
                    // Another server may be allowed, and is not the one that the token is for.
                    token = token.filter(|_| next.has_origin_of(&url));
                    secrets.add(&next);
                    url = next;
                }
                _ => return Err(refused(response, secrets)),
            }
        }
        Err(Failure::new(format!("the other server redirects more than {MAX_REDIRECTS} times")))
    }

    /// Returns the URL that a redirect names.
    fn redirected(&self, from: &PeerUrl, location: Option<&str>) -> Result<PeerUrl, Failure> {
        let location = location.ok_or_else(|| Failure::new("the other server redirects without a Location"))?;
        let to = from.join(location).map_err(|error| Failure::new(format!("the other server redirects to a wrong address: {error}")))?;
        if !self.rooms.allows(&to) {
            return Err(Failure::new(format!("the other server redirects to {to}, which is not within rooms.peers")));
        }
        if from.is_encrypted() && !to.is_encrypted() {
            return Err(Failure::new(format!("the other server redirects from https to {to}, which is not encrypted")));
        }
        Ok(to)
    }

    fn accepted(
        &self,
        agent: &Agent,
        from: &PeerUrl,
        token: Option<Secret>,
        response: Response<Body>,
        secrets: &Secrets,
    ) -> Result<Accepted, Failure> {
        let url = self.located(from, header(&response, "location"))?;
        let session = RemoteSession { url, token };
        match self.read(response, secrets) {
            Ok(answer) => Ok(Accepted { answer, session }),
            Err(failure) => {
                delete(agent, &session);
                Err(failure)
            }
        }
    }

    /// Returns the URL of the session that the server at `from` has begun.
    fn located(&self, from: &PeerUrl, location: Option<&str>) -> Result<PeerUrl, Failure> {
        let location = location
            .ok_or_else(|| Failure::new("the other server answered 201 without a Location, the address by which the session is ended"))?;
        let session = from.join(location).map_err(|error| Failure::new(format!("the Location of the other server is wrong: {error}")))?;
        if !self.rooms.allows(&session) {
            return Err(Failure::new(format!("the Location of the other server, {session}, is not within rooms.peers")));
        }
        if !session.has_origin_of(from) {
            return Err(Failure::new(format!(
                "the Location of the other server, {session}, has another scheme, host or port than the server that answered"
            )));
        }
        Ok(session)
    }

    fn read(&self, response: Response<Body>, secrets: &Secrets) -> Result<String, Failure> {
        let essence = header(&response, "content-type").and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(SDP) {
            let shown: String = secrets.hide(essence).chars().take(MAX_SHOWN_TYPE_CHARS).collect();
            return Err(Failure::new(format!("the other server answered 201, but with {shown:?} in place of {SDP}")));
        }
        let limit = self.sdp_kib * 1024;
        let bytes = read(response, limit as u64)
            .map_err(|error| Failure::new(format!("the answer of the other server did not come whole: {error}")))?;
        if bytes.len() > limit {
            return Err(Failure::new(format!("the answer of the other server is larger than limits.sdp_kib ({})", self.sdp_kib)));
        }
        String::from_utf8(bytes).map_err(|_| Failure::new("the answer of the other server is no text"))
    }
}

/// Ends a session with another server.
fn delete(agent: &Agent, RemoteSession { url, token }: &RemoteSession) {
    let request = agent.delete(url.as_str());
    let request = match token {
        Some(token) => request.header("authorization", bearer(token)),
        None => request,
    };
    match request.call() {
        Ok(response) => debug!(session = %url, status = response.status().as_u16(), "a session with another server has ended"),
        Err(error) => {
            let error = Secrets::of(url, token.as_ref()).hide(&error.to_string());
            debug!(session = %url, error, "a session with another server was not ended");
        }
    }
}

fn bearer(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Reads at most one byte more than `limit`.
fn read(response: Response<Body>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes).map(|_| bytes)
}

/// Returns why the other server refuses an offer.
fn refused(response: Response<Body>, secrets: &Secrets) -> Failure {
    let status = response.status().as_u16();
    let wait = header(&response, "retry-after").and_then(|seconds| seconds.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    let is_html = header(&response, "content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    let body = read(response, MAX_ERROR_BYTES).unwrap_or_default();
    // A part of a secret could be at the end of a text that is not whole.
    let is_shown = !is_html && body.len() as u64 <= MAX_ERROR_BYTES;
    let said = if is_shown { said(&String::from_utf8_lossy(&body), secrets) } else { String::new() };
    let detail = match (status, said.is_empty()) {
        (406, _) => "the other server answered 406: it wants to make the offer itself, which Ooblex does not take".into(),
        (_, true) => format!("the other server answered {status}"),
        (_, false) => format!("the other server answered {status}: {said}"),
    };
    Failure { detail, retry: Retry::Later(wait) }
}

/// Returns the beginning of the words of an error's body, without secrets: the detail of a problem
/// document, or a text.
fn said(body: &str, secrets: &Secrets) -> String {
    let problem: Option<Value> = serde_json::from_str(body).ok();
    let words = problem.as_ref().and_then(|problem| ["detail", "error", "title"].into_iter().find_map(|name| problem[name].as_str()));
    let words = secrets.hide(words.unwrap_or(body));
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect::<String>().trim().into()
}

/// The secrets that are hidden in texts of another server, longest first.
struct Secrets(Vec<String>);

impl Secrets {
    fn of(url: &PeerUrl, token: Option<&Secret>) -> Self {
        let mut secrets = Self(token.map(|token| token.reveal().to_string()).into_iter().collect());
        secrets.add(url);
        secrets
    }

    /// Adds what is secret in a URL.
    fn add(&mut self, url: &PeerUrl) {
        self.0.extend(url.secrets().into_iter().filter(|secret| secret.chars().count() >= MIN_HIDDEN_CHARS));
        // A secret that is a part of another one would leave the rest of that.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, secret| text.replace(secret, "***"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const OFFER: &str = "v=0\r\n";
    const GOOD: &str =
        "HTTP/1.1 201 Created\r\ncontent-type: Application/SDP; x=y\r\nlocation: session\r\ncontent-length: 5\r\n\r\nv=0\r\n";

    /// Serves the answers, one for each request; `PORT` stands for the port. Returns the port and the
    /// heads of the requests.
    fn server(answers: Vec<String>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            answers.into_iter().map(|answer| serve(listener.accept().unwrap().0, &answer.replace("PORT", &port.to_string()))).collect()
        });
        (port, thread)
    }

    fn serve(mut stream: TcpStream, answer: &str) -> String {
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).unwrap();
            head.extend(&buffer[..read]);
        }
        // The client may not read all of an answer that is too large.
        _ = stream.write_all(answer.as_bytes());
        String::from_utf8_lossy(&head).into_owned()
    }

    fn ask(port: u16, token: Option<&str>) -> Result<Accepted, Failure> {
        let rooms = Rooms { peers: vec![format!("http://127.0.0.1:{port}/live/").parse().unwrap()], ..Rooms::default() };
        let exchange = Exchange::new(rooms, 1, Vec::new());
        let target =
            Target { url: format!("http://127.0.0.1:{port}/live/whep?key=hidden").parse().unwrap(), token: token.and_then(Secret::new) };
        exchange.rules.offer(&exchange.agent, &target, OFFER)
    }

    fn refusal(answers: &[&str]) -> (Failure, Vec<String>) {
        let (port, heads) = server(answers.iter().map(ToString::to_string).collect());
        let failure = ask(port, Some("hunter2")).unwrap_err();
        (failure, heads.join().unwrap())
    }

    #[test]
    fn offer_is_sent_with_its_token_and_the_session_is_found() {
        let (port, heads) = server(vec![GOOD.into()]);
        let Accepted { answer, session } = ask(port, Some("hunter2")).unwrap();
        assert_eq!(session.token.as_ref().map(Secret::reveal), Some("hunter2"));
        assert_eq!((answer.as_str(), session.url.as_str()), (OFFER, &*format!("http://127.0.0.1:{port}/live/session")));
        let head = heads.join().unwrap().remove(0).to_ascii_lowercase();
        assert!(head.starts_with("post /live/whep?key=hidden ") && head.contains("authorization: bearer hunter2"), "{head}");
        assert!(head.contains("content-type: application/sdp"), "{head}");
    }

    #[test]
    fn redirects_within_the_prefix_are_followed_and_others_are_not() {
        let to = |location: &str| format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let (port, heads) = server(vec![to("/live/other"), GOOD.into()]);
        assert!(ask(port, None).is_ok());
        assert!(heads.join().unwrap()[1].starts_with("POST /live/other "));
        for location in ["/admin", "http://169.254.169.254/live/", "http://127.0.0.1:1/live/", "/live/../admin", "//evil.example/live/a"] {
            let (failure, heads) = refusal(&[&to(location)]);
            assert!(failure.detail.contains("not within rooms.peers"), "{location}: {failure:?}");
            assert_eq!(heads.len(), 1);
        }
        let (failure, _) = refusal(&[&*to("/live/a"), &to("/live/b"), &to("/live/c"), &to("/live/d")]);
        assert!(failure.detail.contains("more than 3 times"), "{failure:?}");
        let (failure, _) = refusal(&["HTTP/1.1 302 Found\r\nlocation: /live/a\r\ncontent-length: 0\r\n\r\n"]);
        assert!(failure.detail.contains("answered 302"), "{failure:?}");
    }

    #[test]
    fn token_stays_with_its_origin() {
        let (other, other_heads) = server(vec![GOOD.into()]);
        let to = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{other}/live/b\r\ncontent-length: 0\r\n\r\n");
        let (port, heads) = server(vec![to]);
        let prefixes = [port, other].map(|port| format!("http://127.0.0.1:{port}/live/").parse().unwrap());
        let exchange = Exchange::new(Rooms { peers: prefixes.to_vec(), ..Rooms::default() }, 1, Vec::new());
        let target = Target { url: format!("http://127.0.0.1:{port}/live/a").parse().unwrap(), token: Secret::new("hunter2") };
        let Accepted { session, .. } = exchange.rules.offer(&exchange.agent, &target, OFFER).unwrap();
        assert!(session.url.as_str().ends_with(&format!(":{other}/live/session")) && session.token.is_none(), "{session:?}");
        let [asked, redirected] = [heads, other_heads].map(|heads| heads.join().unwrap().remove(0).to_ascii_lowercase());
        assert!(asked.contains("authorization:") && !redirected.contains("authorization:"), "{redirected}");
    }

    #[test]
    fn redirects_keep_https_and_locations_keep_the_origin() {
        let prefixes = ["https://media.example/", "http://media.example/", "https://other.example/"];
        let rules =
            Rules { rooms: Rooms { peers: prefixes.map(|prefix| prefix.parse().unwrap()).to_vec(), ..Rooms::default() }, sdp_kib: 1 };
        let from = "https://media.example/live".parse().unwrap();
        let detail = |found: Result<PeerUrl, Failure>| found.map_or_else(|failure| failure.detail, |url| url.to_string());
        assert!(detail(rules.redirected(&from, Some("http://media.example/live"))).contains("not encrypted"));
        assert_eq!(detail(rules.redirected(&from, Some("https://other.example/live"))), "https://other.example/live");
        for location in ["http://media.example/1", "https://other.example/1"] {
            assert!(detail(rules.located(&from, Some(location))).contains("another scheme, host or port"), "{location}");
        }
        assert_eq!(detail(rules.located(&from, Some("/1"))), "https://media.example/1");
    }

    #[test]
    fn answers_that_can_not_be_used_are_refused_by_name_and_their_sessions_end() {
        let created = |headers: &str, body: &str| format!("HTTP/1.1 201 Created\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        let sdp = "content-type: application/sdp\r\nlocation: /live/1\r\n";
        let none = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        for (words, answers) in [
            ("without a Location", vec![created("content-type: application/sdp\r\n", OFFER)]),
            ("is not within rooms.peers", vec![created("content-type: application/sdp\r\nlocation: /elsewhere\r\n", OFFER)]),
            ("in place of application/sdp", vec![created("content-type: text/html\r\nlocation: /live/1\r\n", OFFER), none.into()]),
            ("larger than limits.sdp_kib", vec![created(sdp, &"x".repeat(2000)), none.into()]),
        ] {
            let (failure, heads) = refusal(&answers.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(failure.detail.contains(words), "{words}: {failure:?}");
            assert!(heads.len() == 1 || heads[1].starts_with("DELETE /live/1 "), "{heads:?}");
        }
    }

    #[test]
    fn refusals_of_the_other_server_are_told_without_secrets() {
        let answer =
            |status: &str, headers: &str, body: &str| format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        let problem = r#"{"detail": "the token hunter2 has expired\n(key=hidden)"}"#;
        let (failure, _) = refusal(&[&answer("401 Unauthorized", "content-type: application/problem+json\r\n", problem)]);
        assert_eq!(failure.detail, "the other server answered 401: the token *** has expired (***)");
        let (failure, _) = refusal(&[&answer("503 Service Unavailable", "retry-after: 7\r\n", "full")]);
        assert_eq!((failure.detail.as_str(), failure.retry), ("the other server answered 503: full", Retry::Later(Duration::from_secs(7))));
        let (failure, _) = refusal(&[&answer("404 Not Found", "content-type: text/html\r\n", "<html>hunter2</html>")]);
        assert_eq!(failure.detail, "the other server answered 404");
        let (failure, _) = refusal(&[&answer("406 Not Acceptable", "", "v=0")]);
        assert!(failure.detail.contains("wants to make the offer itself"));
    }

    #[test]
    fn no_part_of_a_secret_is_shown() {
        let token = "0123456789".repeat(40);
        let url = "https://media.example/live?key=hid%2Bden&n=7".parse().unwrap();
        let secrets = Secrets::of(&url, Secret::new(&token).as_ref());
        assert_eq!(said(&format!("no {token}"), &secrets), "no ***");
        let long = said(&format!("{}{token}", "x".repeat(290)), &secrets);
        assert_eq!(long, format!("{}***", "x".repeat(290)));
        assert_eq!(said("7: hid%2Bden, hid+den, key=hid%2Bden&n=7", &secrets), "7: ***, ***, ***");
        let answer = |body: &str| format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (port, server) = server(vec![answer(&token.repeat(12)), answer(&token.repeat(10))]);
        assert_eq!(ask(port, Some(&token)).unwrap_err().detail, "the other server answered 401", "not whole");
        assert_eq!(ask(port, Some(&token)).unwrap_err().detail, format!("the other server answered 401: {}", "***".repeat(10)));
        server.join().unwrap();
    }
}
