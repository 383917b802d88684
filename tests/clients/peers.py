"""Pulls from and pushes to other servers: between gateways, and with servers that misbehave."""

import asyncio
import http.server
import itertools
import json
import pathlib
import re
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from endpoint import SDP, Gateway
from gateway import BINARY, end
from media import CONFIG, Client, Camera, halves, prefer
from aiortc.mediastreams import AudioStreamTrack

PATIENCE_S = 60
PLAIN = 'default_effect = "none"\n'
rooms = (f"room-{n}" for n in itertools.count())


def peers(*prefixes, more=""):
    return CONFIG + f"[rooms]\npeers = {json.dumps(prefixes)}\n{more}"


def ask(gateway, method, path, body=None, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return gateway.request(method, path, body and json.dumps(body), headers)


def links(gateway, kind, token=None):
    return ask(gateway, "GET", "/api/rooms", token=token).json()[kind]


def room_of(gateway, name, token=None):
    found = ask(gateway, "GET", "/api/rooms", token=token).json()["rooms"]
    return next((room for room in found if room["room"] == name), None)


def until(what, look):
    """Waits until `look` returns something true, and returns that."""
    deadline, seen = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        seen, is_there = look()
        if is_there:
            return seen
        time.sleep(0.1)
    raise AssertionError(f"no {what} within {PATIENCE_S} s: {seen}")


def wait_for_state(gateway, kind, id, state, words="", token=None):
    def look():
        link = next((link for link in links(gateway, kind, token) if link["id"] == id), None)
        return link, link and link["state"] == state and words in (link["error"] or "")

    return until(f"{state} {words}", look)


class Gateways(unittest.IsolatedAsyncioTestCase):
    """Media between gateways. `self.far` is the other server."""

    async def asyncSetUp(self):
        self.room, self.clients, self.gateways = next(rooms), [], []

    async def asyncTearDown(self):
        for client in reversed(self.clients):
            await client.end()
        for gateway in self.gateways:
            gateway.stop()

    def begin(self, *arguments, **options):
        gateway = Gateway(*arguments, **options)
        self.gateways.append(gateway)
        return gateway

    def pair(self, far="", near=""):
        self.far = self.begin(CONFIG + far, serve=PLAIN)
        self.near = self.begin(peers(self.far.url) + near, serve=PLAIN)

    async def publish(self, gateway, room, query="", codec=None):
        client = Client(gateway, f"/whip/{room}{query}")
        self.clients.append(client)
        prefer(client.connection.addTransceiver(Camera(), direction="sendonly"), codec)
        client.connection.addTransceiver(AudioStreamTrack(), direction="sendonly")
        await client.begin()
        return client

    async def watch(self, gateway, room):
        await asyncio.to_thread(until, "room", lambda: (room_of(gateway, room),) * 2)
        client = Client(gateway, f"/whep/{room}")
        self.clients.append(client)
        client.connection.addTransceiver("video", direction="recvonly")
        client.connection.addTransceiver("audio", direction="recvonly")
        await client.begin()
        return client

    async def assert_processed(self, viewer, frames=60):
        """Waits for pictures and sound. Every picture is inverted."""
        await viewer.wait_for("pictures and sound", lambda: len(viewer.frames) >= frames and len(viewer.sounds) >= frames)
        for _, frame in viewer.frames:
            left, right = halves(frame)
            self.assertGreater(left, right + 40, "an unprocessed frame")

    def pull(self, **fields):
        answer = ask(self.near, "POST", "/api/pulls", {"whep": f"{self.far.url}whep/{self.room}", "room": "pulled", **fields})
        self.assertEqual(answer.status, 201, answer.body)
        self.assertEqual(answer.headers["location"], f"/api/pulls/{answer.json()['id']}")
        return answer.json()["id"]

    def push(self, room, **fields):
        answer = ask(self.near, "POST", "/api/pushes", {"room": room, "whip": f"{self.far.url}whip/{self.room}", **fields})
        self.assertEqual(answer.status, 201, answer.body)
        return answer.json()["id"]

    async def test_pull_publishes_the_stream_of_another_server_with_the_effect(self):
        self.pair()
        await self.publish(self.far, self.room)
        id = await asyncio.to_thread(self.pull, effect="invert")
        viewer = await self.watch(self.near, "pulled")
        await self.assert_processed(viewer)
        link = await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "connected")
        self.assertEqual((link["room"], link["effect"], link["error"]), ("pulled", "invert", None))
        listed = await asyncio.to_thread(ask, self.near, "GET", "/api/pulls")
        self.assertEqual([pull["id"] for pull in listed.json()["pulls"]], [id])
        self.assertEqual(len(room_of(self.far, self.room)["viewers"]), 1)
        # The effect of the pulled stream can be changed as that of any session.
        changed = await asyncio.to_thread(ask, self.near, "PATCH", f"/api/sessions/{link['session']}", {"effect": "none"})
        self.assertEqual(changed.status, 200)
        ended = await asyncio.to_thread(ask, self.near, "DELETE", f"/api/pulls/{id}")
        self.assertEqual(ended.status, 204)
        await asyncio.to_thread(until, "end of the room", lambda: (room := room_of(self.near, "pulled"), room is None))
        await asyncio.to_thread(until, "end at the other server", lambda: (room := room_of(self.far, self.room), not room["viewers"]))
        again = await asyncio.to_thread(ask, self.near, "DELETE", f"/api/pulls/{id}")
        self.assertEqual((again.status, again.problem), (404, "not-found"))

    async def test_push_publishes_the_effect_to_another_server(self):
        self.pair()
        await self.publish(self.near, "camera", "?effect=invert")
        id = await asyncio.to_thread(self.push, "camera")
        viewer = await self.watch(self.far, self.room)
        await self.assert_processed(viewer)
        await asyncio.to_thread(wait_for_state, self.near, "pushes", id, "connected")
        self.assertEqual((await asyncio.to_thread(ask, self.near, "DELETE", f"/api/pushes/{id}")).status, 204)
        await asyncio.to_thread(until, "end at the other server", lambda: (room := room_of(self.far, self.room), room is None))
        self.assertIsNotNone(room_of(self.near, "camera"), "the publisher goes on")

    async def test_each_codec_that_only_one_side_allows(self):
        for codec in ["h264", "vp8"]:
            with self.subTest(codec):
                self.pair(far=f'[video]\ncodecs = ["{codec}"]\n')
                self.room = next(rooms)
                await self.publish(self.far, self.room, codec=codec)
                await asyncio.to_thread(self.pull, effect="invert")
                await self.assert_processed(await self.watch(self.near, "pulled"))
                pulled, self.room = self.room, next(rooms)
                await asyncio.to_thread(self.push, "pulled")
                await self.assert_processed(await self.watch(self.far, self.room))
                self.assertNotEqual(pulled, self.room)

    async def test_push_waits_for_a_publisher_and_ends_with_it_and_begins_again(self):
        self.pair()
        id = await asyncio.to_thread(self.push, "camera")
        await asyncio.to_thread(wait_for_state, self.near, "pushes", id, "waiting", "nobody publishes")
        for _ in range(2):
            publisher = await self.publish(self.near, "camera", "?effect=invert")
            await self.assert_processed(await self.watch(self.far, self.room))
            await publisher.end()
            self.clients.remove(publisher)
            await asyncio.to_thread(wait_for_state, self.near, "pushes", id, "waiting")
            await asyncio.to_thread(until, "end at the other server", lambda: (room := room_of(self.far, self.room), room is None))

    async def test_other_server_that_goes_away_and_comes_back_is_reached_again(self):
        self.pair()
        await self.publish(self.far, self.room)
        id = await asyncio.to_thread(self.pull, effect="invert")
        await self.assert_processed(await self.watch(self.near, "pulled"))
        # It disappears without a word.
        await asyncio.to_thread(end, self.far.process, signal.SIGKILL)
        link = await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "waiting")
        self.assertRegex(link["error"], "not heard any more|can not be reached|has ended the connection")
        self.assertLessEqual(link["next_attempt_s"], 30)
        await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "waiting", "can not be reached")
        self.far = self.begin(CONFIG, serve=PLAIN, port=self.far.port)
        await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "waiting", "409")
        await self.publish(self.far, self.room)
        await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "connected")
        await self.assert_processed(await self.watch(self.near, "pulled"))

    async def test_pulls_and_pushes_of_the_configuration_with_tokens(self):
        made = [subprocess.run([BINARY, "token", "key", "--role", role, "--name", role], capture_output=True, text=True, check=True).stdout for role in ["publish", "view", "admin"]]
        (publish, one), (view, two), (admin, three) = (text.split("\n", 1) for text in made)
        self.far = self.begin(CONFIG + f'[auth]\nmode = "keys"\n{one}{two}{three}', serve=PLAIN)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = pathlib.Path(folder.name) / "token"
        file.write_text(view + "\n")
        lists = (
            f'[[pulls]]\nwhep = "{self.far.url}whep/{self.room}"\nroom = "pulled"\neffect = "invert"\ntoken_file = "{file}"\n'
            f'[[pushes]]\nroom = "pulled"\nwhip = "{self.far.url}whip/{self.room}-out"\ntoken_variable = "PUSH_TOKEN"\n'
            f'[[pushes]]\nroom = "pulled"\nwhip = "{self.far.url}whip/{self.room}-wrong"\ntoken = "{view}"\n'
        )
        self.near = self.begin(peers(self.far.url) + lists, serve=PLAIN, variables={"PUSH_TOKEN": publish})
        camera = Client(self.far, f"/whip/{self.room}?token={publish}")
        self.clients.append(camera)
        camera.connection.addTransceiver(Camera(), direction="sendonly")
        camera.connection.addTransceiver(AudioStreamTrack(), direction="sendonly")
        await camera.begin()
        await self.assert_processed(await self.watch(self.near, "pulled"))
        ids = [push["id"] for push in links(self.near, "pushes")]
        await asyncio.to_thread(wait_for_state, self.near, "pushes", ids[0], "connected")
        await asyncio.to_thread(wait_for_state, self.near, "pushes", ids[1], "waiting", "answered 403")
        self.assertIsNotNone(room_of(self.far, f"{self.room}-out", admin))
        shown = ask(self.near, "GET", "/api/rooms").body.decode() + self.near.log(10_000)
        self.assertFalse([token for token in (publish, view) if token in shown], "a token is shown")
        # The other server is told when the gateway stops.
        self.gateways.remove(self.near)
        await asyncio.to_thread(self.near.stop)
        await asyncio.to_thread(until, "end at the other server", lambda: (room := room_of(self.far, f"{self.room}-out", admin), room is None))


    async def test_drain_is_not_held_up_by_a_pull_and_begins_none(self):
        self.far = self.begin(CONFIG, serve=PLAIN)
        self.near = self.begin(peers(self.far.url), serve=PLAIN + "drain_s = 600\n")
        await self.publish(self.far, self.room)
        id = await asyncio.to_thread(self.pull)
        await asyncio.to_thread(wait_for_state, self.near, "pulls", id, "connected")
        viewer = await self.watch(self.near, "pulled")
        self.near.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, "end of readiness", lambda: (answer := self.near.request("GET", "/readyz"), answer.status == 503))
        refused = await asyncio.to_thread(ask, self.near, "POST", "/api/pushes", {"room": "pulled", "whip": f"{self.far.url}whip/other"})
        self.assertEqual((refused.status, refused.problem), (503, "unavailable"))
        # The pull goes on for its viewer, and ends with it.
        seen = len(viewer.frames)
        await viewer.wait_for("pictures while the gateway stops", lambda: len(viewer.frames) >= seen + 30)
        await viewer.end()
        self.clients.remove(viewer)
        await asyncio.to_thread(self.near.process.wait, 20)
        await asyncio.to_thread(until, "end at the other server", lambda: (room := room_of(self.far, self.room), not room["viewers"]))

    async def test_pull_that_is_ended_before_the_other_server_answers_begins_no_session(self):
        server = Server(("127.0.0.1", 0), Strange)
        server.asked, server.may_answer = threading.Event(), threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        base = f"http://127.0.0.1:{server.server_port}/live/"
        self.far = server.far = self.begin(CONFIG, serve=PLAIN)
        self.near = self.begin(peers(base), serve=PLAIN)
        server.path = f"/whep/{self.room}"
        await self.publish(self.far, self.room)
        id = await asyncio.to_thread(self.pull, whep=f"{base}late")
        self.assertTrue(await asyncio.to_thread(server.asked.wait, PATIENCE_S))
        self.assertEqual((await asyncio.to_thread(ask, self.near, "DELETE", f"/api/pulls/{id}")).status, 204)
        server.may_answer.set()
        await asyncio.to_thread(until, "end at the other server", lambda: (Strange.deleted, "/live/session/late" in Strange.deleted))
        await asyncio.to_thread(until, "end of the pull", lambda: (log := self.near.log(10_000), "a pull has ended" in log))
        self.assertNotIn("session begins", self.near.log(10_000))


class Strange(http.server.BaseHTTPRequestHandler):
    """A server whose answers depend on the path."""

    protocol_version = "HTTP/1.1"
    deleted = []
    elsewhere = []

    def do_POST(self):
        offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = self.path.rsplit("/", 1)[-1]
        if not self.path.startswith("/live/"):
            self.elsewhere.append(self.path)
        getattr(self, name)(offer)

    def do_DELETE(self):
        self.deleted.append(self.path)
        self.reply(200)

    def reply(self, status, body="", kind="application/sdp", location=None):
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def created(self, body):
        self.reply(201, body, location=f"/live/session/{self.path.rsplit('/', 1)[-1]}")

    def garbage(self, _):
        self.created("v=0\r\n" + "\x00\xff" * 500)

    def echo(self, offer):
        self.created(offer)

    def many_lines(self, offer):
        self.created(offer + "a=x\r\n" * 3000)

    def large(self, _):
        self.created("v=0\r\n" + "a=x\r\n" * 40_000)

    def silent(self, _):
        time.sleep(PATIENCE_S)

    def endless(self, _):
        self.send_response(201)
        self.send_header("Location", "/live/session/endless")
        self.send_header("Content-Type", SDP)
        self.end_headers()
        deadline = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < deadline:
                self.wfile.write(b"a")
                time.sleep(0.1)
        except OSError:
            pass

    def away(self, _):
        self.reply(307, location="/admin/away")

    def late(self, offer):
        """Answers as the server's `far` gateway does, once the test says so."""
        self.server.asked.set()
        self.server.may_answer.wait(PATIENCE_S)
        answer = self.server.far.request("POST", self.server.path, offer, {"Content-Type": SDP})
        self.reply(answer.status, answer.body.decode(), location="/live/session/late")

    def counter_offer(self, offer):
        self.reply(406, offer)

    def wrong_location(self, offer):
        self.reply(201, offer, location="http://127.0.0.1:1/session")

    def unknown(self, _):
        self.reply(404, json.dumps({"detail": "no stream hunter2 here\n"}), "application/problem+json")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Prints nothing when a client has closed the connection."""


class Misbehaviour(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(("127.0.0.1", 0), Strange)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.base = f"http://127.0.0.1:{cls.server.server_port}"
        cls.gateway = Gateway(peers(f"{cls.base}/live/"), serve=PLAIN)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()
        cls.server.shutdown()
        cls.server.server_close()

    def tearDown(self):
        for pull in links(self.gateway, "pulls"):
            self.assertEqual(ask(self.gateway, "DELETE", f"/api/pulls/{pull['id']}").status, 204)
        self.assertEqual(links(self.gateway, "pulls"), [])

    def pull(self, path, **fields):
        return ask(self.gateway, "POST", "/api/pulls", {"whep": f"{self.base}{path}", "room": next(rooms), "token": "hunter2", **fields})

    def test_answers_that_can_not_be_used_are_told_and_do_no_harm(self):
        cases = {
            "garbage": "can not be used: it sends no video",
            "echo": "can not be used",
            "many_lines": "lines",
            "large": "larger than limits.sdp_kib",
            "silent": "can not be reached: timeout",
            "endless": "did not come whole: .*timeout",
            "away": "which is not within rooms.peers",
            "counter_offer": "406",
            "wrong_location": "Location of the other server, .*not within rooms.peers",
            "unknown": r"^the other server answered 404: no stream \*\*\* here$",
        }
        begun = {}
        for name in cases:
            answer = self.pull(f"/live/{name}")
            self.assertEqual(answer.status, 201, answer.body)
            begun[name] = answer.json()["id"]
        for name, words in cases.items():
            link = wait_for_state(self.gateway, "pulls", begun[name], "waiting")
            self.assertRegex(link["error"], words, name)
        self.assertTrue(self.gateway.is_alive())
        self.assertEqual(Strange.elsewhere, [])
        for name in ["garbage", "echo", "large", "endless"]:
            self.assertIn(f"/live/session/{name}", Strange.deleted, "the session there is ended")
        self.assertEqual(self.gateway.sessions(), [])

    def test_addresses_that_are_not_allowed_are_refused_at_once(self):
        for path, status, kind, words in [
            ("/liver/a", 403, "forbidden", "rooms.peers"),
            ("/", 403, "forbidden", "rooms.peers"),
            ("/live/../admin", 400, "bad-request", "'..'"),
            ("/live/%2e%2e/admin", 403, "forbidden", "rooms.peers"),
            ("/live/..%2fadmin", 400, "bad-request", "encoded dots"),
            ("/live/a#b", 400, "bad-request", "fragment"),
        ]:
            answer = self.pull(path)
            self.assertEqual((answer.status, answer.problem), (status, kind), path)
            self.assertIn(words, answer.json()["detail"])
        for url in ["http://169.254.169.254/live/a", f"{self.base}@evil.example/live/a", "file:///etc/passwd", "live/a"]:
            for kind, body in [("pulls", {"whep": url}), ("pushes", {"whip": url})]:
                answer = ask(self.gateway, "POST", f"/api/{kind}", {"room": "a", **body})
                self.assertIn(answer.status, [400, 403], url)
        self.assertEqual(links(self.gateway, "pulls") + links(self.gateway, "pushes"), [])

    def test_nothing_is_allowed_by_default(self):
        gateway = Gateway(CONFIG)
        self.addCleanup(gateway.stop)
        answer = ask(gateway, "POST", "/api/pushes", {"room": "a", "whip": f"{self.base}/live/a"})
        self.assertEqual((answer.status, answer.problem), (403, "forbidden"))
        self.assertIn("rooms.peers", answer.json()["detail"])

    def test_requests_that_make_no_sense_are_refused(self):
        for fields, status, kind in [
            ({"effect": "nonsense"}, 422, "unknown-effect"),
            ({"effect": "sepia", "params": {"x": 1}}, 422, "bad-parameter"),
            ({"room": "a/b"}, 400, "bad-request"),
            ({"token": "two\r\nlines"}, 400, "bad-request"),
            ({"color": "red"}, 400, "bad-request"),
        ]:
            answer = self.pull("/live/unknown", **fields)
            self.assertEqual((answer.status, answer.problem), (status, kind), fields)
        first = self.pull("/live/unknown", room="one")
        second = self.pull("/live/unknown", room="one")
        self.assertEqual((first.status, second.status, second.problem), (201, 409, "room-taken"))

    def test_number_is_limited(self):
        answers = [self.pull("/live/unknown") for _ in range(65)]
        self.assertEqual([answer.status for answer in answers], [201] * 64 + [503])


class Https(unittest.TestCase):
    def test_certificates_are_verified(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        key, certificate = (pathlib.Path(folder.name) / name for name in ["key.pem", "certificate.pem"])
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        server = Server(("127.0.0.1", 0), Strange)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        for host, ca, words in [
            ("localhost", "", "certificate"),
            ("localhost", f'peers_ca_file = "{certificate}"\n', "answered 404"),
            ("127.0.0.1", f'peers_ca_file = "{certificate}"\n', "certificate"),
        ]:
            url = f"https://{host}:{server.server_port}/live/"
            gateway = Gateway(peers(url, more=ca), serve=PLAIN)
            try:
                id = ask(gateway, "POST", "/api/pulls", {"whep": f"{url}unknown", "room": "a"}).json()["id"]
                link = wait_for_state(gateway, "pulls", id, "waiting")
                self.assertIsNotNone(re.search(words, link["error"]), (host, link))
            finally:
                gateway.stop()
