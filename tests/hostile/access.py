"""Attacks on access control: pages of other hosts, other host names, other content types, and
sessions of others.
"""

import asyncio
import hashlib
import json
import secrets
import socket
import subprocess
import tempfile
import unittest

from attack import Attack, fresh_address
from gateway import BINARY, REPOSITORY, Gateway, end
from peer import plain_offer

# Timeout in seconds for a program that refuses to start.
EXIT_S = 10


class Foreign(Attack):
    """A gateway with the default configuration: on the loopback interface, open to all programs on
    this machine, but not to pages of other hosts.
    """

    async def begin(self, **headers):
        """Begins a session that stays unconnected; returns its path and the header with its secret.
        """
        answer = await asyncio.to_thread(self.gateway.offer, plain_offer(), fresh_address(), headers=headers, effect="none")
        self.assertEqual(answer.status, 200, answer.body[:300])
        told = answer.json()
        return f"/api/sessions/{told['session']}", {"Authorization": f"Bearer {told.get('secret')}"}

    async def ask(self, method, path, body=None, headers=None):
        return await asyncio.to_thread(self.gateway.request, method, path, body, headers, fresh_address())

    async def assert_problem(self, status, kind, method, path, body=None, headers=None):
        answer = await self.ask(method, path, body, headers)
        with self.subTest(f"{method} {path.split('/')[1]} {headers}"):
            self.assertEqual((answer.status, answer.problem), (status, kind), answer.body[:300])

    async def test_pages_of_other_hosts(self):
        own = f"http://{self.gateway.host}:{self.gateway.port}"
        session, secret = await self.begin(Origin=own)
        change, offer = json.dumps({"effect": "none"}), json.dumps({"sdp": plain_offer(), "type": "offer", "effect": "none"})
        foreign = ["http://evil.example", "null", f"{own}.evil.example", "https://127.0.0.1", f"http://{self.gateway.host}:1", "file://", "*"]
        async with self.undisturbed():
            for origin in foreign:
                await self.assert_problem(403, "foreign-origin", "POST", "/offer", offer, {"Origin": origin})
                await self.assert_problem(403, "foreign-origin", "PATCH", session, change, {"Origin": origin, **secret})
                await self.assert_problem(403, "foreign-origin", "DELETE", session, None, {"Origin": origin, **secret})
                await self.assert_problem(403, "foreign-origin", "POST", "/api/effects/reload", "", {"Origin": origin})
        with self.subTest("the own page may"):
            self.assertEqual((await self.ask("PATCH", session, change, {"Origin": own, **secret})).status, 200)
            self.assertEqual((await self.ask("DELETE", session, None, {"Origin": own, **secret})).status, 204)

    async def test_other_names_of_the_host(self):
        port = self.gateway.port
        names = ["evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", f"localhost.evil.example:{port}", "", "[::ffff:198.51.100.1]",
                 "198.51.100.1", f"localhost@evil.example:{port}"]
        async with self.undisturbed():
            for name in names:
                for method, path in (("GET", "/"), ("GET", "/api/sessions"), ("POST", "/offer")):
                    answer = await self.ask(method, path, "{}" if method == "POST" else None, {"Host": name})
                    with self.subTest(f"{method} {path} of {name!r}"):
                        # An invalid name may also be refused as a bad request.
                        self.assertIn((answer.status, answer.problem), [(421, "wrong-host")] + ([(400, answer.problem)] if "@" in name or not name else []))
        for name in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
            with self.subTest(f"own name {name}"):
                self.assertEqual((await self.ask("GET", "/api/effects", None, {"Host": name})).status, 200)

    async def test_two_names_of_the_host(self):
        request = b"GET /api/sessions HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        status = await asyncio.to_thread(self.raw, request)
        self.assertIn(status, (400, 421))
        request = b"GET http://evil.example/api/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.assertIn(await asyncio.to_thread(self.raw, request), (400, 421))

    def raw(self, request):
        with socket.create_connection((self.gateway.host, self.gateway.port), timeout=20) as connection:
            connection.sendall(request)
            return int(connection.recv(4096).split()[1])

    async def test_other_types_of_body(self):
        session, secret = await self.begin()
        offer = json.dumps({"sdp": plain_offer(), "type": "offer", "effect": "none"})
        async with self.undisturbed():
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "", "application/sdp"):
                await self.assert_problem(415, "wrong-content-type", "POST", "/offer", offer, {"Content-Type": kind})
                await self.assert_problem(415, "wrong-content-type", "PATCH", session, "{}", {"Content-Type": kind, **secret})
        with self.subTest("JSON with a charset"):
            answer = await self.ask("PATCH", session, '{"effect": "none"}', {"Content-Type": "application/json; charset=utf-8", **secret})
            self.assertEqual(answer.status, 200, answer.body[:200])

    async def test_what_a_proxy_forwards_is_not_from_the_operator(self):
        """The routes of operators are open to this machine, but not to requests through a proxy on
        it.
        """
        async with self.undisturbed():
            for header in ({"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"X-Forwarded-Host": "video.example"}):
                for method, path in (("GET", "/api/sessions"), ("GET", "/metrics"), ("POST", "/api/effects/reload")):
                    answer = await self.ask(method, path, "" if method == "POST" else None, header)
                    with self.subTest(f"{method} {path} {header}"):
                        self.assertIn(answer.status, (401, 403), answer.body[:100])


class Keys(unittest.TestCase):
    """A gateway with keys: what each of them allows and forbids."""

    @classmethod
    def setUpClass(cls):
        cls.keys = {role: "obx_" + secrets.token_hex(20) for role in ("publish", "view", "admin")}
        entries = "".join(
            f'[[auth.keys]]\nname = "{role}"\nrole = "{role}"\nhash = "sha256:{hashlib.sha256(key.encode()).hexdigest()}"\n'
            for role, key in cls.keys.items()
        )
        cls.gateway = Gateway('[auth]\nmode = "keys"\n' + entries)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def ask(self, method, path, credential=None, body=None, in_url=False):
        headers = {"Authorization": f"Bearer {credential}"} if credential and not in_url else {}
        path = f"{path}?token={credential}" if in_url else path
        return self.gateway.request(method, path, body, headers, fresh_address())

    def begin(self, credential):
        body = json.dumps({"sdp": plain_offer(), "type": "offer", "effect": "none"})
        return self.ask("POST", "/offer", credential, body)

    def test_sessions_are_for_those_with_a_key(self):
        for name, credential in (("none", None), ("a wrong one", "obx_" + "0" * 40), ("an empty one", " "), ("its hash", "sha256:" + "0" * 64)):
            answer = self.begin(credential)
            with self.subTest(name):
                self.assertEqual((answer.status, answer.problem), (401, "unauthorized"))
                self.assertTrue(answer.headers.get("www-authenticate", "").startswith("Bearer"))
                self.assertNotIn(b"obx_", answer.body)
        self.assertEqual(self.begin(self.keys["view"]).status, 403)
        self.assertEqual(self.begin(self.keys["publish"]).status, 200)

    def test_sessions_of_others(self):
        mine, other = self.begin(self.keys["publish"]).json(), self.begin(self.keys["publish"]).json()
        path = f"/api/sessions/{other['session']}"
        self.assertGreaterEqual(len(other["secret"]), 20)
        self.assertNotEqual(mine["secret"], other["secret"])
        change = '{"effect": "none"}'
        for name, credential, status in (
            ("none", None, 401), ("its id", other["session"], 401), ("a key to publish", self.keys["publish"], 403),
            ("a key to view", self.keys["view"], 403), ("the secret of another session", mine["secret"], None),
        ):
            for method, where, body in (("GET", path, None), ("PATCH", path, change), ("DELETE", path, None), ("GET", path + "/events", None)):
                answer = self.ask(method, where, credential, body)
                with self.subTest(f"{method} {where.rsplit('/', 1)[-1][:6]} with {name}"):
                    self.assertIn(answer.status, (status,) if status else (401, 403), answer.body[:200])
        with self.subTest("the session's own secret"):
            self.assertEqual(self.ask("GET", path, other["secret"]).status, 200)
            self.assertEqual(self.ask("PATCH", path, other["secret"], change).status, 200)
            self.assertEqual(self.ask("DELETE", path, other["secret"]).status, 204)
        with self.subTest("an operator"):
            self.assertEqual(self.ask("DELETE", f"/api/sessions/{mine['session']}", self.keys["admin"]).status, 204)

    def test_routes_of_the_operator(self):
        secret = self.begin(self.keys["publish"]).json()["secret"]
        for method, path in (("GET", "/api/sessions"), ("GET", "/metrics"), ("POST", "/api/effects/reload")):
            for name, credential, statuses in (
                ("none", None, (401,)), ("publish", self.keys["publish"], (403,)), ("view", self.keys["view"], (403,)), ("a secret", secret, (401, 403)),
                ("admin", self.keys["admin"], (200,)),
            ):
                answer = self.ask(method, path, credential, "" if method == "POST" else None)
                with self.subTest(f"{method} {path} with {name}"):
                    self.assertIn(answer.status, statuses, answer.body[:200])

    def test_what_is_public(self):
        for path in ("/", "/api/effects", "/healthz", "/readyz"):
            with self.subTest(path):
                self.assertEqual(self.ask("GET", path).status, 200)

    def test_keys_are_not_written_down(self):
        self.begin("obx_" + "f" * 40)
        self.ask("GET", "/api/sessions", self.keys["admin"], in_url=True)
        log = self.gateway.log(100_000)
        for key in [*self.keys.values(), "obx_" + "f" * 40]:
            self.assertNotIn(key, log)


class Exposed(unittest.TestCase):
    def test_an_address_of_the_network_needs_a_word_on_access(self):
        with tempfile.NamedTemporaryFile(suffix=".toml") as defaults:
            process = subprocess.Popen(
                [BINARY, "serve", "--config", defaults.name, "--listen", "0.0.0.0:0", "--media", "127.0.0.1:0", "--workers", "1"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
            )
            try:
                _, said = process.communicate(timeout=EXIT_S)
            except subprocess.TimeoutExpired:
                self.fail("it serves everybody")
            finally:
                end(process)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("auth.mode", said)
