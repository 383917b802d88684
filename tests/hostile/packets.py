"""Attacks by RTP, RTCP, header extensions and SCTP after DTLS: mutated, meaningless, repeated, and too
many packets.

Packets are encrypted before an attack begins, so that the attack itself uses little CPU.
"""

import asyncio
import random
import struct
import time
from statistics import median

import pylibsrtp

from attack import Attack, fresh_address
from bits import mutated, vp8_frames
from channels import checked
from neighbour import Neighbour
from peer import Peer, vp8_payloads

SECONDS = 3
# Half of the default of `limits.session_packets`.
PACKETS_A_SECOND = 1500
# Maximum delay of the neighbour's frames during an attack, and the resolution of a timer.
LATER = 1.3
TIMER_MS = 1.0
ROUNDS = 2


def rtp_noise(peer, dice):
    """Packets of the camera with changed bytes anywhere after the first two, which identify RTP,
    and flags without the data that they announce.
    """
    frames = vp8_frames()
    while True:
        for packet in peer.packets(vp8_payloads(dice.choice(frames))):
            packet = bytearray(mutated(dice, packet, dice.randrange(1, 5), first=dice.choice((2, 12, 13))))
            packet[0] = 0x80 | dice.choice((0, 0, 0x20, 0x0F, 0x2F))
            yield bytes(packet).ljust(12, b"\0")


def extension_noise(peer, dice):
    """Header extensions (RFC 8285) with wrong lengths, reserved ids, or invalid values."""
    while True:
        block = b""
        for _ in range(dice.randrange(1, 8)):
            id = dice.choice((0, 1, 3, 4, 5, 6, 9, 15))
            block += bytes([id << 4 | dice.randrange(16)]) + dice.randbytes(dice.randrange(0, 17))
        if dice.random() < 0.3:
            profile, block = 0x1000 | dice.randrange(16), dice.randbytes(dice.randrange(0, 300))
        else:
            profile = dice.choice((0xBEDE, 0xBEDE, 0xBEDE, 0, 0xFFFF))
        block += b"\0" * (-len(block) % 4)
        packet = peer.rtp_packet(b"\x10" + dice.randbytes(40), extension=struct.pack("!HH", profile, len(block) // 4) + block)
        yield packet


def foreign_sources(peer, dice):
    """Payload types and SSRCs that were not announced, and sequence numbers and timestamps that
    jump.
    """
    while True:
        yield peer.rtp_packet(
            b"\x10" + dice.randbytes(60), marker=dice.random() < 0.5, payload_type=dice.choice((0, 8, 63, 95, 96, 97, 98, 127)),
            ssrc=dice.getrandbits(32), sequence=dice.getrandbits(16), timestamp=dice.getrandbits(32),
        )


def rtcp(kind, count, payload):
    payload += b"\0" * (-len(payload) % 4)
    return struct.pack("!BBH", 0x80 | count, kind, len(payload) // 4) + payload


def feedback(peer, dice):
    """Valid RTCP in absurd quantities: NACKs for all packets, keyframe requests, estimates from
    zero to infinity.
    """
    sources = struct.pack("!LL", peer.ssrc, peer.sender or 0)
    while True:
        yield rtcp(205, 1, sources + b"".join(struct.pack("!HH", dice.getrandbits(16), 0xFFFF) for _ in range(dice.randrange(1, 250))))
        yield rtcp(206, 1, sources)
        yield rtcp(206, 4, sources + struct.pack("!LBxxx", peer.sender or 0, dice.getrandbits(8)))
        mantissa = dice.choice((0, 1, 0x3FFFF))
        estimate = dice.choice((0, 30, 63)) << 18 | mantissa
        yield rtcp(206, 15, struct.pack("!LL", peer.ssrc, 0) + b"REMB" + bytes([1]) + estimate.to_bytes(3, "big") + struct.pack("!L", peer.sender or 0))
        yield rtcp(205, 15, sources + struct.pack("!HHL", dice.getrandbits(16), 0xFFFF, dice.getrandbits(32)) + dice.randbytes(dice.randrange(0, 600)))


def rtcp_noise(peer, dice):
    """RTCP packets whose counts and lengths exceed their size, and compound packets of them."""
    while True:
        packet = b""
        for _ in range(dice.randrange(1, 6)):
            kind, count, body = dice.randrange(200, 208), dice.randrange(32), dice.randbytes(4 * dice.randrange(1, 40))
            one = bytearray(rtcp(kind, count, struct.pack("!L", peer.ssrc) + body))
            if dice.random() < 0.4:
                one[2:4] = dice.choice((0, 1, 5, 200, 0xFFFF)).to_bytes(2, "big")
            packet += bytes(one)
        yield packet


def sctp_noise(peer, dice):
    tag = peer.sctp._remote_verification_tag
    while True:
        body = b""
        for _ in range(dice.randrange(1, 6)):
            length = dice.choice((0, 3, 4, 5, 16, 20, 40))
            body += struct.pack("!BBH", dice.choice((0, 1, 3, 4, 9, 130, 192, 255)), dice.randrange(8), length) + dice.randbytes(max(0, length - 4))
        yield checked(struct.pack("!HHL", 5000, 5000, dice.choice((tag, tag, 0, 1))), body)


KINDS = [rtp_noise, extension_noise, foreign_sources, feedback, rtcp_noise, sctp_noise]


async def prepare(peer, kind, seconds, seed=6):
    """The datagrams of an attack. Not in a thread, because the session encrypts packets of its own in the meantime."""
    plain = kind(peer, random.Random(seed))
    count = int(seconds * PACKETS_A_SECOND)
    datagrams = []
    while len(datagrams) < count:
        if len(datagrams) % 100 == 0:
            await asyncio.sleep(0)
        if kind is sctp_noise:
            peer.transport._ssl.send(next(plain))
            datagrams.append(peer.transport._ssl.bio_read(1500))
            continue
        try:
            datagrams.append(peer.protected(next(plain)))
        except pylibsrtp.Error:
            pass  # So invalid that it cannot be encrypted
    return datagrams


async def flood(peer, datagrams, rate=PACKETS_A_SECOND):
    """Sends the packets at their rate."""
    start, sent = time.monotonic(), 0
    while sent < len(datagrams) and peer.is_connected:
        due = min(len(datagrams), int((time.monotonic() - start) * rate) + 1)
        for datagram in datagrams[sent:due]:
            await peer.send_datagram(datagram)
        sent = due
        await asyncio.sleep(0.01)


class Packets(Attack):
    async def assert_bounded(self, kind):
        async with self.undisturbed():
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                # Waits for a first picture, so that there is an SSRC to refer to.
                await peer.play(vp8_frames(), 2, until=lambda: peer.pictures)
                await flood(peer, await prepare(peer, kind, SECONDS))

    async def test_mutated_rtp(self):
        await self.assert_bounded(rtp_noise)

    async def test_header_extensions_of_wrong_lengths(self):
        await self.assert_bounded(extension_noise)

    async def test_unknown_sources_and_payload_types(self):
        await self.assert_bounded(foreign_sources)

    async def test_floods_of_feedback(self):
        await self.assert_bounded(feedback)

    async def test_rtcp_with_wrong_lengths(self):
        await self.assert_bounded(rtcp_noise)

    async def test_noise_on_sctp(self):
        await self.assert_bounded(sctp_noise)

    async def test_replayed_and_damaged_packets(self):
        """Sends earlier packets again, and again with changed bytes, which do not match the
        authentication tag.
        """
        dice = random.Random(7)
        async with self.undisturbed():
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                recorded = [peer.protected(packet) for frame in vp8_frames() for packet in peer.packets(vp8_payloads(frame))]
                await flood(peer, recorded)
                again = [dice.choice(recorded) for _ in range(SECONDS * PACKETS_A_SECOND)]
                await flood(peer, [data if number % 2 else mutated(dice, data, 2, first=1) for number, data in enumerate(again)])
                self.assertTrue(peer.is_connected, "what comes without a right tag must not end the session")

    async def test_a_session_that_sends_more_than_it_may(self):
        """Packets beyond the session's limit do not affect other sessions."""
        async with self.undisturbed():
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                datagrams = await prepare(peer, rtp_noise, 4)
                await flood(peer, datagrams, rate=6000)


class Latency(Attack):
    async def test_latency_of_a_neighbour_beside_hostile_packets(self):
        """95 % of the neighbour's frames are back within 1.3 times the time without the attack,
        measured alternately.
        """
        quiet, attacked = [], []
        begun, others = time.monotonic(), self.others_cpu_seconds()
        for _ in range(ROUNDS):
            neighbour = Neighbour(self.gateway)
            windows = {False: [], True: []}
            await asyncio.to_thread(neighbour.wait_for_seconds, time.monotonic(), 2)
            for kind in KINDS:
                async with await Peer.connect(self.gateway, fresh_address()) as peer:
                    await peer.play(vp8_frames(), 2, until=lambda: peer.pictures)
                    datagrams = await prepare(peer, kind, SECONDS)
                    start = time.monotonic()
                    await asyncio.sleep(SECONDS)
                    middle = time.monotonic()
                    await flood(peer, datagrams)
                    windows[False].append((start, middle))
                    windows[True].append((middle, time.monotonic()))
            await asyncio.to_thread(neighbour.finish)
            for is_attacked, into in ((False, quiet), (True, attacked)):
                for since, until in windows[is_attacked]:
                    into += [second.p95_ms for second in neighbour.seconds if since + 1 <= second.at <= until and second.p95_ms]
            self.assert_alive()
            if median(attacked) <= LATER * median(quiet) + TIMER_MS:
                break
        else:
            if self.is_machine_taken(begun, others):
                return
            self.fail(f"p95 in ms beside attacks {median(attacked)}, without {median(quiet)}; by second: {attacked} and {quiet}")
