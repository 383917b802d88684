"""Attacks on SCTP inside DTLS: too many data channels, streams without an opening message, and
noise.
"""

import asyncio
import random
import struct

from aiortc.rtcsctptransport import WEBRTC_BINARY, WEBRTC_STRING
from google_crc32c import value as crc32c

from attack import Attack, fresh_address
from bits import mutated, vp8_frames
from peer import Peer

SECONDS = 3


class Channels(Attack):
    async def assert_bounded(self, attack, must_end=False):
        """Runs an attack in a session that also sends a camera. The gateway ends the session, or
        tolerates it.
        """
        async with self.undisturbed():
            cpu = self.gateway.cpu_seconds()
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                task = asyncio.create_task(attack(peer))
                await peer.play(vp8_frames(), SECONDS, until=lambda: not peer.is_connected)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                ended = await peer.has_ended()
                told = peer.said("bye") + peer.said("error")
            used = self.gateway.cpu_seconds() - cpu
        self.assertLess(used, SECONDS, "CPU seconds of the gateway in all, with the neighbour's")
        if must_end:
            self.assertTrue(ended or told, "the session was neither ended nor told")
        return ended

    async def test_600_data_channels(self):
        opened = []

        async def attack(peer):
            for number in range(600):
                channel = peer.open_channel(f"channel {number}")
                channel.on("open", lambda: opened.append(number))
                await asyncio.sleep(0.003)
            await asyncio.sleep(SECONDS)

        await self.assert_bounded(attack, must_end=True)
        self.assertLessEqual(len(opened), 8, "data channels that were opened besides `control`")

    async def test_streams_without_the_words_that_open_a_channel(self):
        async def attack(peer):
            for stream in range(1, 60_000, 20):
                await peer.sctp._send(stream, WEBRTC_BINARY, b"x")
                await asyncio.sleep(0.0005)
            await asyncio.sleep(SECONDS)

        await self.assert_bounded(attack, must_end=True)

    async def test_the_highest_streams(self):
        async def attack(peer):
            for stream in range(65_534, 65_500, -2):
                await peer.sctp._send(stream, WEBRTC_STRING, b"{}")
                await asyncio.sleep(0.01)
            await asyncio.sleep(SECONDS)

        await self.assert_bounded(attack, must_end=True)

    async def test_messages_that_never_end(self):
        """Sends the first and middle fragments of a message of megabytes on `control`, without a
        last one; then complete messages that are too long.
        """
        async def attack(peer):
            await peer.sctp._send(peer.control.id, WEBRTC_STRING, b"x" * 8_000_000)
            peer.sctp._outbound_queue.pop()
            for _ in range(40):
                await peer.sctp._send(peer.control.id + 2, WEBRTC_STRING, b"x" * 250_000)
                await asyncio.sleep(0.05)

        await self.assert_bounded(attack)

    async def test_control_messages_that_are_none(self):
        texts = ["", "[" * 9000, "{}", '{"type":7}', '{"type":"set_effect","effect":"' + "x" * 9000 + '"}', '{"type":"set_effect","params":[]}',
                 '{"type":"set_effect","effect":"style_transfer","params":{"strength":1e999}}', "\0" * 100, "x" * 60_000]

        async def attack(peer):
            for number in range(600):
                peer.control.send(texts[number % len(texts)])
                await asyncio.sleep(0.004)

        await self.assert_bounded(attack)

    async def test_noise_in_place_of_chunks(self):
        dice = random.Random(4)

        async def attack(peer):
            sctp = peer.sctp
            for number in range(3000):
                body = b""
                for _ in range(dice.randrange(1, 8)):
                    kind = dice.choice((0, 1, 2, 3, 4, 6, 7, 9, 10, 14, 130, 192, 255))
                    length = dice.choice((0, 1, 3, 4, 16, 20, 60, 0xFFFF))
                    body += struct.pack("!BBH", kind, dice.randrange(256), length) + dice.randbytes(min(length, 60))
                tag = dice.choice((0, sctp._remote_verification_tag))
                await peer.send_sctp(checked(struct.pack("!HHL", 5000, 5000, tag), body))
                await asyncio.sleep(0.001)

        await self.assert_bounded(attack)

    async def test_mutated_packets(self):
        dice = random.Random(5)

        async def attack(peer):
            sound = peer.transport._send_data
            async def send(data):
                await sound(data)
                for _ in range(5):
                    other = mutated(dice, data, dice.randrange(1, 4), first=dice.choice((0, 12)))
                    await sound(checked(other[:8].ljust(8, b"\0"), other[12:]))
            peer.transport._send_data = send
            for number in range(400):
                peer.control.send('{"type":"set_effect","effect":"none"}')
                await asyncio.sleep(0.005)

        await self.assert_bounded(attack)


def checked(head, body):
    """Returns an SCTP packet with a correct checksum (RFC 9260 §6.8), so that it is not dropped for
    that reason.
    """
    data = head + b"\0\0\0\0" + body
    return head + struct.pack("<L", crc32c(data)) + body
