"""Attacks by offers that no browser makes: huge, endless, nested, of wrong types, and too many of
them.
"""

import asyncio
import json
import random
import time

from attack import Attack, each, fresh_address
from peer import Peer, Refused, channel_line, plain_offer, session_head, transport_lines, video_line

# Maximum time in seconds for the refusal of a hostile offer. The best of several attempts counts,
# because the machine may be busy.
REFUSED_S = 0.1
TRIES = 4
# Maximum size of a refusal in bytes.
SMALL = 4096
# Limits of the answer to an offer that is odd but within the limits, which may be accepted.
ANSWERED_S = 0.5
ANSWER = 32_768
# `limits.connect_s`, and a margin for a busy machine.
CONNECT_S = 10
LATE_S = 5


def many_lines(count):
    lines = transport_lines("abcd", "a" * 24, ":".join(["AB"] * 32))
    mids = [str(number) for number in range(count)]
    return session_head(mids) + "".join(video_line(lines, mid=mid, ssrc=1000 + 2 * int(mid)) for mid in mids)


def short_lines(count):
    line = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:m{}\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n"
    return plain_offer() + "".join(map(line.format, range(count)))


def payload_types(count, lines=1):
    """Includes payload types above 127, because there are only 128."""
    numbers = [str(96 + number) for number in range(count)]
    transport = transport_lines("abcd", "a" * 24, ":".join(["AB"] * 32))
    video = video_line(transport).replace("SAVPF 96 97", "SAVPF 96 97 " + " ".join(numbers))
    return session_head(["0", "1"]) + video * lines + channel_line(transport)


def mapped_payload_types(count):
    maps = "".join(f"a=rtpmap:{number % 128} VP8/90000\r\na=rtcp-fb:{number % 128} nack\r\n" for number in range(count))
    return plain_offer(extra_video=maps)


def ufrags(count):
    lines = [transport_lines(f"user{number:04}", f"{number:024}", ":".join(["AB"] * 32)) for number in range(count)]
    mids = [str(number) for number in range(count)]
    return session_head(mids) + "".join(video_line(line, mid=mid, ssrc=1000 + 2 * int(mid)) for line, mid in zip(lines, mids))


def candidates(count):
    lines = "".join(f"a=candidate:{n} 1 udp {n} 192.0.2.{n % 250} {1024 + n % 60000} typ host\r\n" for n in range(count))
    return plain_offer(extra_video=lines)


def attributes(size):
    line = "a=ssrc:{} cname:peer\r\n"
    lines = []
    while sum(map(len, lines[:1])) * len(lines) < size:
        lines.append(line.format(10_000_000 + len(lines)))
    return plain_offer(extra_video="".join(lines))


HOSTILE_SDP = {
    "1200 media lines": lambda: short_lines(1200),
    "17 whole media lines": lambda: many_lines(17),
    "24,000 payload types": lambda: payload_types(24_000),
    "24,000 payload types on several lines": lambda: payload_types(3000, lines=8),
    "65 payload types": lambda: payload_types(65),
    "6000 maps of payload types": lambda: mapped_payload_types(6000),
    "228 KB": lambda: attributes(228_000),
    "65 KB": lambda: attributes(67_000),
    "5000 candidates": lambda: candidates(5000),
    "65 candidates": lambda: candidates(65),
    "12 ICE users": lambda: ufrags(12),
    "one line of 200 KB": lambda: "v=0\r\n" + "a=" + "x" * 200_000,
    "one value of 200 KB": lambda: plain_offer(extra_video="a=fmtp:96 " + "x" * 200_000 + "\r\n"),
    "line ends only": lambda: "v=0" + "\r\n" * 50_000,
    "nothing but a beginning": lambda: "v=0",
    "noise": lambda: "v=0\r\n" + random.Random(1).randbytes(20_000).decode("latin-1"),
}

# Offers within the limits as a whole, but absurd in one part: answered quickly, and with few bytes.
ODD_SDP = {
    "an mid of 60 KB": lambda: plain_offer().replace("a=mid:0", "a=mid:" + "0" * 60_000),
    "a value of 60 KB": lambda: plain_offer(extra_video="a=fmtp:96 " + "x" * 60_000 + "\r\n"),
    "60 KB of sources": lambda: attributes(60_000),
    "60 KB of empty lines": lambda: plain_offer() + "\r\n" * 30_000,
    "thousands of extensions": lambda: plain_offer(extra_video="".join(f"a=extmap:{n % 250 + 1} urn:x:{n}\r\n" for n in range(2500))),
    "hundreds of layers": lambda: plain_offer(
        extra_video="".join(f"a=rid:{n} send\r\n" for n in range(900)) + "a=simulcast:send " + ";".join(map(str, range(900))) + "\r\n"
    ),
}

HOSTILE_BODIES = {
    "nothing": b"",
    "nesting": b"[" * 100_000,
    "nesting in a field": b'{"sdp":"v=0","type":"offer","params":' + b"[" * 60_000,
    "nesting that ends": b'{"sdp":"v=0","type":"offer","params":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "no JSON": b"v=0\r\n",
    "no text": bytes(range(256)) * 100,
    "a number as SDP": b'{"sdp": 1, "type": "offer"}',
    "null as SDP": b'{"sdp": null, "type": "offer"}',
    "a list as SDP": b'{"sdp": ["v=0"], "type": "offer"}',
    "an object as effect": b'{"sdp": "v=0", "type": "offer", "effect": {}}',
    "text as parameters": b'{"sdp": "v=0", "type": "offer", "effect": "background_blur", "params": "strong"}',
    "another type": b'{"sdp": "v=0", "type": "answer"}',
    "a huge number": b'{"sdp": "v=0", "type": "offer", "effect": "delay", "params": {"ms": 1e999}}',
    "thousands of parameters": json.dumps({"sdp": "v=0", "effect": "delay", "params": {f"p{n}": n for n in range(9000)}}).encode(),
    "a chain of hundreds": json.dumps({"sdp": "v=0", "effect": "+".join(["background_blur"] * 900)}).encode(),
    "the same field again and again": b"{" + b'"sdp":"v=0",' * 9000 + b'"type":"offer"}',
    "more than a request may have": b'{"sdp": "' + b"v" * 400_000 + b'"}',
}


class Offers(Attack):
    async def assert_refused(self, name, body):
        answers = [await asyncio.to_thread(self.gateway.request, "POST", "/offer", body, address=fresh_address()) for _ in range(TRIES)]
        with self.subTest(name):
            for answer in answers:
                self.assertIn(answer.status, range(400, 500), answer.body[:200])
                self.assertIsNotNone(answer.problem, f"no problem document: {answer.headers}")
                self.assertLess(len(answer.body), SMALL, "bytes of the answer")
            self.assertLess(min(answer.seconds for answer in answers), REFUSED_S, "seconds until it was refused")

    async def test_sound_offers_are_answered(self):
        """The control: the parts of the hostile offers are accepted if they are complete and small.
        """
        for name, sdp in {"plain": plain_offer(), "16 candidates": candidates(16), "30 sources": attributes(800)}.items():
            answer = await asyncio.to_thread(self.gateway.offer, sdp, fresh_address(), effect="none")
            with self.subTest(name):
                self.assertEqual(answer.status, 200, answer.body[:300])

    async def test_sdp_beyond_all_limits(self):
        async with self.undisturbed():
            for name, sdp in HOSTILE_SDP.items():
                await self.assert_refused(name, json.dumps({"sdp": sdp(), "type": "offer", "effect": "none"}))

    async def test_sdp_with_one_absurd_part(self):
        async with self.undisturbed():
            for name, sdp in ODD_SDP.items():
                answers = [await asyncio.to_thread(self.gateway.offer, sdp(), fresh_address(), effect="none") for _ in range(TRIES)]
                with self.subTest(name):
                    for answer in answers:
                        self.assertTrue(answer.status == 200 or 400 <= answer.status < 500, answer.body[:200])
                        self.assertLess(len(answer.body), ANSWER, "bytes of the answer")
                    self.assertLess(min(answer.seconds for answer in answers), ANSWERED_S, "seconds until it was answered")

    async def test_bodies_that_are_no_offer(self):
        async with self.undisturbed():
            for name, body in HOSTILE_BODIES.items():
                await self.assert_refused(name, body)

    async def test_mutated_offers(self):
        """Accepted or refused, but answered quickly, with few bytes, and never with an internal
        error of the gateway.
        """
        sound = plain_offer("h264")
        async def one(seed):
            dice = random.Random(seed)
            lines = sound.split("\r\n")
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(lines))
                match dice.randrange(5):
                    case 0:
                        del lines[at]
                    case 1:
                        lines.insert(at, dice.choice(lines))
                    case 2:
                        lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
                    case 3:
                        lines[at] = lines[at].replace(dice.choice("0123456789"), str(dice.choice((0, 255, 65536, 1 << 32, 1 << 64, -1))))
                    case 4:
                        lines[at] += dice.choice((" ", ":", "=", "\0", "é", "x" * 300))
                lines = lines or [""]
            answer = await asyncio.to_thread(self.gateway.offer, "\r\n".join(lines), fresh_address(), effect="none")
            if answer.status == 200:
                session = answer.json()
                headers = {"Authorization": f"Bearer {session.get('secret')}"}
                await asyncio.to_thread(self.gateway.request, "DELETE", f"/api/sessions/{session['session']}", headers=headers)
            return answer

        async with self.undisturbed():
            answers = await each([one(seed) for seed in range(150)], at_once=3)
        for seed, answer in enumerate(answers):
            self.assertTrue(answer.status == 200 or 400 <= answer.status < 500, f"seed {seed}: {answer.status} {answer.body[:300]}")
            self.assertLess(len(answer.body), ANSWER, f"seed {seed}")

    async def test_many_at_once_hold_nobody_up(self):
        """A health request is answered at once while dozens of offers of the maximum size arrive.
        """
        body = json.dumps({"sdp": attributes(228_000), "type": "offer"})
        waits = []

        async def look():
            for _ in range(20):
                answer = await asyncio.to_thread(self.gateway.request, "GET", "/healthz")
                waits.append(answer.seconds)
                await asyncio.sleep(0.05)

        offers = [asyncio.to_thread(self.gateway.request, "POST", "/offer", body, address=fresh_address()) for _ in range(60)]
        async with self.undisturbed():
            *answers, _ = await asyncio.gather(each(offers, at_once=12), look())
        for answer in answers[0]:
            self.assertIn(answer.status, (400, 413, 429, 503), answer.body[:200])
        self.assertLess(sorted(waits)[len(waits) // 2], 0.5, f"seconds until /healthz was answered: {waits}")


class Unconnected(Attack):
    async def test_120_sessions_that_never_connect(self):
        """Their number is limited, per address and in total, their memory is bounded, and their
        slots become free again.
        """
        offer = plain_offer()
        greedy = fresh_address()
        async with self.undisturbed():
            start = time.monotonic()
            of_one = await each([asyncio.to_thread(self.gateway.offer, offer, greedy, effect="none") for _ in range(20)])
            of_many = await each([asyncio.to_thread(self.gateway.offer, offer, fresh_address(), effect="none") for _ in range(100)])
            taken = time.monotonic() - start
            statuses = [answer.status for answer in of_one]
            with self.subTest("one address"):
                self.assertEqual(statuses.count(200), 4, statuses)
                self.assertEqual(statuses.count(429) + statuses.count(503), 16, statuses)
            statuses = [answer.status for answer in of_many]
            with self.subTest("all addresses"):
                self.assertLess(taken, CONNECT_S, "the machine is too slow for this test: places became free in between")
                self.assertEqual(statuses.count(200), 28, statuses)
                self.assertEqual(statuses.count(503) + statuses.count(429), 72, statuses)
            for answer in of_one + of_many:
                if answer.status != 200:
                    self.assertIsNotNone(answer.problem)
                    self.assertIn("retry-after", answer.headers, answer.problem)
            with self.subTest("places become free"):
                while (left := len(self.gateway.sessions())) > 1 and time.monotonic() < start + taken + CONNECT_S + LATE_S:
                    await asyncio.sleep(0.2)
                self.assertEqual(left, 1, "sessions: the neighbour's only")
                try:
                    async with await Peer.connect(self.gateway, greedy) as peer:
                        self.assertTrue(peer.is_connected)
                except Refused as refused:
                    self.fail(f"there is no place again: {refused}")

    async def test_offers_at_a_high_rate_from_one_address(self):
        """Refused offers count, too, and offers from other addresses are not delayed."""
        address = fresh_address()
        async with self.undisturbed():
            answers = await each([asyncio.to_thread(self.gateway.offer, "v=0", address) for _ in range(90)], at_once=2)
            other = await asyncio.to_thread(self.gateway.offer, "v=0", fresh_address())
        statuses = [answer.status for answer in answers]
        self.assertGreaterEqual(statuses.count(429), 90 - 60 - 10, statuses)
        self.assertEqual(set(statuses), {422, 429})
        self.assertEqual(other.status, 422, "of another address")
        late = next(answer for answer in answers if answer.status == 429)
        self.assertGreater(int(late.headers.get("retry-after", 0)), 0)
