"""WHIP (RFC 9725) and WHEP: what an endpoint answers, without media."""

import base64
import hashlib
import hmac
import http.client
import itertools
import re
import secrets
import subprocess
import threading
import time
import unittest

from endpoint import CANDIDATES, FRAGMENT, H264, OPUS, SDP, VP8, Gateway, camera, line, offer, section
from gateway import BINARY, PATIENCE_S

# The most viewers of a room.
VIEWERS = 32

rooms = (f"room-{n}" for n in itertools.count())


class Endpoint(unittest.TestCase):
    CONFIG = (
        "[limits]\nsessions = 1000\nsessions_per_address = 1000\nunconnected_sessions = 1000\nunconnected_per_address = 400\n"
        "offers_per_minute = 10000\nconnect_s = 30\n"
    )
    SERVE = ""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(cls.CONFIG, serve=cls.SERVE)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def ask(self, method, path, body=None, **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.gateway.request(method, path, body, names)

    def begin(self, path, sdp=None, **headers):
        return self.ask("POST", path, sdp or camera(), **{"Content_Type": SDP, **headers})

    def publish(self, sdp=None, **headers):
        """Publishes to a room of its own; returns the room and the answer."""
        room = next(rooms)
        answer = self.begin(f"/whip/{room}", sdp, **headers)
        self.assertEqual(answer.status, 201, answer.body[:500])
        return room, answer

    def assert_problem(self, answer, status, kind, *words):
        self.assertEqual((answer.status, answer.problem), (status, kind), answer.body[:500])
        for word in words:
            self.assertIn(word, answer.json()["detail"])


class Creation(Endpoint):
    def test_answer_is_201_with_location_and_sdp(self):
        for content_type in [SDP, "Application/SDP", "application/sdp; charset=utf-8"]:
            room, answer = self.publish(Content_Type=content_type)
            self.assertEqual(answer.headers["content-type"], SDP)
            self.assertTrue(answer.body.startswith(b"v=0") and len(answer.body) < 8192)
            self.assertRegex(answer.headers["location"], rf"^/whip/{room}/\S+$")
            self.assertRegex(answer.headers["etag"], r'^"[^"]+"$')
            self.assertEqual(answer.headers["accept-patch"], FRAGMENT)
            self.assertNotIn("link", answer.headers, "no TURN server is configured")
            watched = self.begin(f"/whep/{room}", camera("recvonly"))
            self.assertEqual(watched.status, 201, watched.body)
            self.assertRegex(watched.headers["location"], rf"^/whep/{room}/\S+$")

    def test_wrong_type_and_malformed_sdp_are_told_apart(self):
        room = next(rooms)
        for path in [f"/whip/{room}", f"/whep/{self.publish()[0]}"]:
            for content_type in ["application/json", "text/plain", ""]:
                self.assert_problem(self.begin(path, camera("sendrecv"), Content_Type=content_type), 415, "wrong-content-type", SDP)
            for sdp in ["hello", "v=0\r\n", "{}", camera("sendrecv").replace("a=ice-ufrag:abcd\r\n", "")]:
                answer = self.begin(path, sdp)
                self.assertIn(answer.status, [400, 422], sdp)
                self.assertIsNotNone(answer.problem)

    def test_directions(self):
        for direction in ["sendonly", "sendrecv"]:
            room, answer = self.publish(camera(direction))
            for kind in ["audio", "video"]:
                self.assertIn("a=recvonly", section(answer.body, kind), f"{kind} of {direction}")
        for direction in ["recvonly", "sendrecv"]:
            answer = self.begin(f"/whep/{room}", camera(direction))
            self.assertEqual(answer.status, 201, answer.body)
            for kind in ["audio", "video"]:
                self.assertIn("a=sendonly", section(answer.body, kind), f"{kind} of {direction}")
        self.assert_problem(self.begin(f"/whip/{next(rooms)}", camera("recvonly")), 422, "no-video")
        self.assert_problem(self.begin(f"/whep/{room}", camera("sendonly")), 422, "no-video")

    def test_one_video_line_and_one_audio_line(self):
        video, audio = (line("video", 0, "sendonly", VP8), line("audio", 0, "sendonly", OPUS, "111"))
        self.publish(offer(video))
        two_videos = offer(video, line("video", 1, "sendonly", VP8))
        two_audios = offer(audio, line("audio", 1, "sendonly", OPUS, "111"), line("video", 2, "sendonly", VP8))
        for sdp in [two_videos, two_audios]:
            answer = self.begin(f"/whip/{next(rooms)}", sdp)
            self.assertEqual(answer.status, 422, answer.body)

    def test_no_partial_success(self):
        pcmu = line("audio", 0, "sendonly", "a=rtpmap:0 PCMU/8000\r\n", "0")
        answer = self.begin(f"/whip/{next(rooms)}", offer(pcmu, line("video", 1, "sendonly", VP8)))
        self.assertEqual(answer.status, 422, answer.body)
        self.assertIn("PCMU", answer.json()["detail"])
        for codec, name in [("AV1", "AV1"), ("VP9", "VP9"), ("H265", "H.265")]:
            answer = self.begin(f"/whip/{next(rooms)}", offer(line("video", 0, "sendonly", f"a=rtpmap:96 {codec}/90000\r\n")))
            self.assert_problem(answer, 422, "no-common-codec", name, "H.264")

    def test_setup_roles(self):
        for offered, answered in [("actpass", "passive"), ("active", "passive"), ("passive", "active")]:
            _, answer = self.publish(camera(setup=offered))
            self.assertIn(f"a=setup:{answered}", answer.body.decode().split("\r\n"), offered)

    def test_answer_has_all_candidates_and_muxes(self):
        _, answer = self.publish()
        text = answer.body.decode()
        self.assertIn("a=rtcp-mux-only", section(answer.body, "audio"))
        self.assertIn("a=rtcp-mux-only", section(answer.body, "video"))
        self.assertRegex(text, r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host")
        self.assertIn("a=group:BUNDLE 0 1", text)

    def test_h264_profiles(self):
        for profile in ["42e01f", "42001f", "4d001f", "64001f"]:
            with self.subTest(profile):
                formats = line("video", 0, "sendonly", H264.format(pt=96, profile=profile))
                _, answer = self.publish(offer(formats))
                self.assertIn("H264/90000", answer.body.decode())

    def test_opus_stays_stereo(self):
        room, answer = self.publish()
        self.assertRegex("\r\n".join(section(answer.body, "audio")), r"a=fmtp:111 .*stereo=1")

    def test_rooms_without_a_publisher_and_full_ones(self):
        self.assert_problem(self.begin(f"/whep/{next(rooms)}", camera("recvonly")), 409, "room-empty")
        room, _ = self.publish()
        taken = self.begin(f"/whip/{room}")
        self.assert_problem(taken, 409, "room-taken", room)
        self.assertIn("retry-after", taken.headers)
        answers = [self.begin(f"/whep/{room}", camera("recvonly")) for _ in range(VIEWERS + 1)]
        self.assertEqual([answer.status for answer in answers], VIEWERS * [201] + [503], answers[-1].body)
        self.assertIn("retry-after", answers[-1].headers)
        self.assertEqual(self.ask("DELETE", answers[0].headers["location"]).status, 200)
        self.assertEqual(self.begin(f"/whep/{room}", camera("recvonly")).status, 201, "a viewer that left makes room")

    def test_a_publisher_that_was_not_heard_for_ten_seconds_gives_way(self):
        room, first = self.publish()
        deadline = time.monotonic() + 25
        refused = offer(line("video", 0, "sendonly", "a=rtpmap:96 VP9/90000\r\n"))
        while (answer := self.begin(f"/whip/{room}", refused)).status == 409:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.5)
        self.assert_problem(answer, 422, "no-common-codec")
        self.assertEqual(self.ask("GET", first.headers["location"]).status, 204, "an offer that is refused ends nobody")
        answer = self.begin(f"/whip/{room}")
        self.assertEqual(answer.status, 201, answer.body)
        self.assertEqual(self.ask("GET", first.headers["location"]).status, 404)
        self.assertEqual(self.ask("GET", answer.headers["location"]).status, 204)

    def test_names_of_rooms(self):
        for name in ["a b", "%2e%2e", "x" * 65, "ä"]:
            answer = self.begin("/whip/" + name.replace(" ", "%20").replace("ä", "%C3%A4"))
            self.assertEqual(answer.status, 400, name)

    def test_effect_and_its_parameters(self):
        room = next(rooms)
        answer = self.begin(f"/whip/{room}?effect=sepia&params=%7B%22strength%22%3A0.5%7D")
        self.assertEqual(answer.status, 201, answer.body)
        shown = {entry["room"]: entry["effect"] for entry in self.ask("GET", "/api/rooms").json()["rooms"]}
        self.assertEqual(shown[room], "sepia")
        self.assert_problem(self.begin(f"/whip/{next(rooms)}?effect=nothing"), 422, "unknown-effect")
        self.assert_problem(self.begin(f"/whip/{next(rooms)}?effect=sepia&params=half"), 422, "bad-parameter")


class Resource(Endpoint):
    def test_delete_is_200_once(self):
        room, answer = self.publish()
        viewer = self.begin(f"/whep/{room}", camera("recvonly")).headers["location"]
        for location in [viewer, answer.headers["location"]]:
            self.assertEqual(self.ask("DELETE", location, If_Match='"other"').status, 200)
            self.assertEqual(self.ask("DELETE", location).status, 404)
        self.assertEqual(self.begin(f"/whip/{room}").status, 201, "the room is free again")

    def test_a_publisher_that_ends_ends_its_viewers(self):
        room, answer = self.publish()
        viewer = self.begin(f"/whep/{room}", camera("recvonly")).headers["location"]
        self.assertEqual(self.ask("DELETE", answer.headers["location"]).status, 200)
        deadline = time.monotonic() + 30
        while self.ask("GET", viewer).status != 404:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def test_the_url_of_a_session_is_its_secret(self):
        room, answer = self.publish()
        location = answer.headers["location"]
        session = next(entry for entry in self.gateway.sessions() if entry["room"] == room)
        for guess in [f"/whip/{room}/{session['id']}", f"/whip/{room}/obs_" + secrets.token_hex(16), location.replace("/whip/", "/whep/x")]:
            for method in ["DELETE", "PATCH"]:
                body = CANDIDATES if method == "PATCH" else None
                self.assertEqual(self.ask(method, guess, body, Content_Type=FRAGMENT, If_Match="*").status, 404, guess)
        self.assertEqual(self.ask("DELETE", location).status, 200)

    def test_patch(self):
        room, answer = self.publish()
        location, etag = answer.headers["location"], answer.headers["etag"]

        def patch(body=CANDIDATES, **headers):
            return self.ask("PATCH", location, body, **{"Content_Type": FRAGMENT, "If_Match": etag, **headers})

        taken = patch()
        self.assertEqual((taken.status, taken.body, "etag" in taken.headers), (204, b"", False))
        self.assertEqual(patch(If_Match='"other"').status, 412)
        self.assertEqual(self.ask("PATCH", location, CANDIDATES, Content_Type=FRAGMENT).status, 428)
        self.assertEqual(patch(Content_Type=SDP).status, 415)
        self.assertEqual(patch("hello").status, 400)
        for any_version in ["*", '"*"']:
            restart = patch(If_Match=any_version)
            self.assertEqual(restart.status, 422)
            self.assertIn("goes on", restart.json()["detail"])
        self.assertEqual(patch().status, 204, "the session goes on")

    def test_get_head_and_options(self):
        room, answer = self.publish()
        viewer = self.begin(f"/whep/{room}", camera("recvonly")).headers["location"]
        for path in [f"/whip/{room}", f"/whep/{room}", answer.headers["location"], viewer]:
            got = self.ask("GET", path)
            self.assertEqual((got.status // 100, got.body), (2, b""), path)
        head = self.ask("HEAD", f"/whep/{room}")
        self.assertEqual((head.status, head.headers["content-type"]), (200, SDP))
        for path in [f"/whip/{room}", f"/whep/{room}"]:
            options = self.ask("OPTIONS", path)
            self.assertIn(options.status, [200, 204])
            self.assertEqual(options.headers["accept-post"], SDP)


class Stream(threading.Thread):
    """Reads a stream of events."""

    def __init__(self, gateway, path):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=PATIENCE_S)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        self.text = ""
        self.start()

    def run(self):
        for line in self.response:
            self.text += line.decode()
        self.connection.close()

    def events(self):
        return re.findall(r"event: (.*)\ndata: (.*)\n", self.text)

    def wait_for(self, event):
        deadline = time.monotonic() + PATIENCE_S
        while event not in self.events():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {event} within {PATIENCE_S} s: {self.events()}")
            time.sleep(0.05)


class Events(Endpoint):
    RELATION = "urn:ietf:params:whep:ext:core:server-sent-events"

    def watch(self, room):
        return self.begin(f"/whep/{room}", camera("recvonly"))

    def test_events_of_a_room_are_linked_chosen_and_sent(self):
        room, published = self.publish()
        answer = self.watch(room)
        address = answer.headers["location"] + "/events"
        self.assertEqual(answer.headers["link"], f'<{address}>; rel="{self.RELATION}"; events="active,inactive,viewercount"')
        choose = lambda names, of="application/json": self.ask("POST", address, names, Content_Type=of)  # noqa: E731
        self.assertEqual(choose('["active"]', "text/plain").status, 415)
        self.assert_problem(choose('["layers"]'), 400, "bad-request", "viewercount")
        self.assertEqual(choose("active").status, 400)
        chosen = choose('["viewercount"]')
        self.assertEqual((chosen.status, chosen.body), (201, b""))
        for method in ["GET", "POST"]:
            other = self.ask(method, f"/whep/{room}/obs_{secrets.token_hex(16)}/events", '["active"]', Content_Type="application/json")
            self.assert_problem(other, 404, "unknown-session")
        streams = [address, chosen.headers["location"]]
        told = [Stream(self.gateway, path) for path in streams]
        counts = [("viewercount", '{"viewercount":1}'), ("viewercount", '{"viewercount":2}')]
        for stream in told:
            stream.wait_for(counts[0])
        self.assertEqual(self.watch(room).status, 201)
        for stream in told:
            stream.wait_for(counts[1])
        self.assertEqual(self.ask("DELETE", published.headers["location"]).status, 200)
        for stream, expected in zip(told, [[("inactive", "{}"), *counts], counts]):
            stream.join(PATIENCE_S)
            self.assertFalse(stream.is_alive(), "it ends with the session")
            self.assertEqual(stream.response.headers["content-type"], "text/event-stream")
            self.assertEqual(stream.events()[: len(expected)], expected, "a publisher without a connection sends no video")


class Pages(Endpoint):
    SERVE = "allow_origins = [\"https://app.example\"]\n"
    ORIGIN = "https://app.example"

    def test_preflight_and_exposed_headers(self):
        asked = {"Origin": self.ORIGIN, "Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type,if-match"}
        preflight = self.ask("OPTIONS", "/whip/page", **asked)
        self.assertIn(preflight.status, [200, 204])
        self.assertEqual(preflight.headers["access-control-allow-origin"], self.ORIGIN)
        words = lambda name: {word.strip().lower() for word in preflight.headers[name].split(",")}  # noqa: E731
        self.assertLessEqual({"options", "get", "head", "post", "patch", "delete"}, words("access-control-allow-methods"))
        self.assertLessEqual({"authorization", "content-type", "if-match"}, words("access-control-allow-headers"))
        _, answer = self.publish(Origin=self.ORIGIN)
        exposed = {word.strip().lower() for word in answer.headers["access-control-expose-headers"].split(",")}
        self.assertLessEqual({"location", "etag", "link", "accept-patch", "retry-after"}, exposed)


def key(role):
    printed = subprocess.run([BINARY, "token", "key", "--role", role, "--name", role], check=True, capture_output=True, text=True).stdout
    return printed.split("\n", 1)


class Access(Endpoint):
    TURN = "[turn]\nurls = [\"turn:turn.example:3478?transport=udp\", \"turns:turn.example:5349\"]\nsecret = \"north\"\n"

    @classmethod
    def setUpClass(cls):
        (cls.publisher, one), (cls.viewer, other) = key("publish"), key("view")
        cls.CONFIG = Endpoint.CONFIG + "[auth]\nmode = \"keys\"\n" + one + other + cls.TURN
        super().setUpClass()

    def test_bearer_on_every_method_but_preflight(self):
        room = next(rooms)
        may_publish, may_view = (f"Bearer {token}" for token in (self.publisher, self.viewer))
        for path, sdp, right, wrong in [
            (f"/whip/{room}", camera(), may_publish, may_view),
            (f"/whep/{room}", camera("recvonly"), may_view, may_publish),
        ]:
            refused = self.begin(path, sdp)
            self.assert_problem(refused, 401, "unauthorized")
            self.assertEqual(refused.headers["www-authenticate"], "Bearer")
            self.assert_problem(self.begin(path, sdp, Authorization="Bearer nothing"), 401, "unauthorized")
            self.assert_problem(self.begin(path, sdp, Authorization=wrong), 403, "forbidden")
            answer = self.begin(path, sdp, Authorization=right)
            self.assertEqual(answer.status, 201, answer.body)
            location, etag = answer.headers["location"], answer.headers["etag"]
            self.assertEqual(self.ask("PATCH", location, CANDIDATES, Content_Type=FRAGMENT, If_Match=etag).status, 401)
            self.assertEqual(self.ask("DELETE", location).status, 401)
            self.assertEqual(self.ask("PATCH", location, CANDIDATES, Content_Type=FRAGMENT, If_Match=etag, Authorization=right).status, 204)
            if path.startswith("/whip"):
                first = location
            else:
                self.assertEqual(self.ask("DELETE", location + f"?token={self.viewer}").status, 200, "the token in the query")
        self.assertEqual(self.ask("DELETE", first, Authorization=may_publish).status, 200)
        answer = self.begin(f"/whip/{room}?token={self.publisher}", camera())
        self.assertEqual(answer.status, 201, answer.body)

    def test_turn_servers_are_linked_for_those_who_may_use_them(self):
        authorization = f"Bearer {self.publisher}"
        _, answer = self.publish(Authorization=authorization)
        links = answer.headers["link"]
        self.assertEqual(len(re.findall(r"<turns?:[^>]*>; rel=\"ice-server\"", links)), 1, "http.client keeps the last line of a header")
        found = re.fullmatch(r'<([^>,;]*)>; rel="ice-server"; username="([^",;]*)"; credential="([^",;]*)"; credential-type="password"', links)
        self.assertIsNotNone(found, links)
        digest = hmac.new(b"north", found[2].encode(), hashlib.sha1).digest()
        self.assertEqual(base64.b64encode(digest).decode(), found[3])
        self.assertIn("link", self.ask("OPTIONS", f"/whip/{next(rooms)}", Authorization=authorization).headers)
        self.assertNotIn("link", self.ask("OPTIONS", f"/whip/{next(rooms)}").headers)
