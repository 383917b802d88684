"""Datagrams of other hosts to the media port: STUN with forged names, invalid DTLS, and datagrams of
all sizes.
"""

import asyncio
import random
import secrets
import socket
import struct
import time

from attack import Attack, fresh_address
from bits import vp8_frames
from packets import flood
from peer import Peer, plain_offer, stun_request

SECONDS = 3
DATAGRAMS_A_SECOND = 3000
# Maximum number of bytes sent to an address that is not validated.
UNASKED_BYTES = 8192


def stun_noise(dice, names):
    while True:
        match dice.randrange(6):
            case 0:
                yield stun_request(f"{secrets.token_hex(2)}:abcd", "x" * 24)
            case 1:
                yield stun_request(f"{dice.choice(names)}:{secrets.token_hex(2)}", "wrong" * 5)
            case 2:
                yield stun_request(f"{dice.choice(names)}:abcd", None)
            case 3:
                yield stun_request("x" * dice.randrange(500), "x" * 24)
            case 4:
                # A header, followed by attributes with invalid lengths.
                body = b"".join(struct.pack("!HH", dice.choice((6, 8, 0x8028, 0x24, 0x25, 0xFFFF)), dice.getrandbits(16)) + dice.randbytes(8) for _ in range(9))
                yield struct.pack("!HHL", 1, dice.choice((len(body), 0, 0xFFFF)), 0x2112A442) + secrets.token_bytes(12) + body
            case 5:
                yield stun_request(f"{dice.choice(names)}:abcd", "x" * 24)[: dice.randrange(1, 60)]


def dtls_noise(dice, names):
    while True:
        kind = dice.choice((20, 21, 22, 22, 22, 23, 25, 63))
        length = dice.choice((0, 1, 13, 100, 1200, 0xFFFF))
        body = dice.randbytes(min(length, 1200))
        if kind == 22:
            # A ClientHello with inconsistent fragments.
            body = bytes([dice.choice((1, 2, 11, 16))]) + dice.randbytes(11) + body
        yield struct.pack("!B2sHHLH", kind, dice.choice((b"\xfe\xfd", b"\xfe\xff", b"\x03\x03")), dice.getrandbits(1), 0, dice.getrandbits(32), length) + body


def any_noise(dice, names):
    while True:
        yield bytes([dice.choice((0, 1, 19, 64, 79, 128, 191, 192, 255))]) + dice.randbytes(dice.choice((0, 1, 11, 100, 1400, 9000, 60_000)))


class Datagrams(Attack):
    def media_address(self, answer):
        """Returns the address of the media port from an answer."""
        for line in answer.json()["sdp"].splitlines():
            if line.startswith("a=candidate:"):
                fields = line.split()
                return fields[4], int(fields[5])
        raise AssertionError("the answer has no candidate")

    async def assert_ignored(self, noise):
        """Sends noise from several addresses; it has no effect, and little of it is answered."""
        dice = random.Random(8)
        address = fresh_address()
        answer = await asyncio.to_thread(self.gateway.offer, plain_offer(), address, effect="none")
        self.assertEqual(answer.status, 200, answer.body[:200])
        target = self.media_address(answer)
        name = next(line.split(":", 1)[1] for line in answer.json()["sdp"].splitlines() if line.startswith("a=ice-ufrag:"))
        datagrams = noise(dice, [name])
        prepared = [next(datagrams) for _ in range(1500)]
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
        try:
            for one in sockets:
                one.bind((fresh_address(), 0))
                one.setblocking(False)
            sent = bytes_sent = 0
            async with self.undisturbed():
                start = time.monotonic()
                while (passed := time.monotonic() - start) < SECONDS:
                    while sent < passed * DATAGRAMS_A_SECOND:
                        data = prepared[sent % len(prepared)]
                        try:
                            sockets[sent % len(sockets)].sendto(data, target)
                        except BlockingIOError:
                            break
                        sent, bytes_sent = sent + 1, bytes_sent + len(data)
                    await asyncio.sleep(0.01)
            self.assertGreater(sent, SECONDS * DATAGRAMS_A_SECOND / 4)
            self.assertLess(sum(map(received_bytes, sockets)), bytes_sent / 2, f"bytes that came back for {bytes_sent}")
        finally:
            for one in sockets:
                one.close()

    async def test_stun_with_forged_names(self):
        await self.assert_ignored(stun_noise)

    async def test_dtls_that_is_none(self):
        await self.assert_ignored(dtls_noise)

    async def test_datagrams_of_all_sizes_and_kinds(self):
        await self.assert_ignored(any_noise)

    async def test_noise_from_the_address_of_a_session(self):
        """Noise from the address of a session does not end it, because anybody can forge the address."""
        async with self.undisturbed():
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                await peer.play(vp8_frames(), 2, until=lambda: peer.pictures)
                dice = random.Random(9)
                for noise in (stun_noise, dtls_noise, any_noise):
                    source = noise(dice, [peer.remote.usernameFragment])
                    await flood(peer, [next(source)[:1200] for _ in range(700)], rate=700)
                before = len(peer.pictures)
                await peer.play(vp8_frames(), 4, until=lambda: len(peer.pictures) > before + 20)
                self.assertTrue(peer.is_connected)
                self.assertGreater(len(peer.pictures), before + 20, "pictures that came after the noise")

    async def test_little_goes_to_an_address_that_was_only_named(self):
        """An ICE check from another address, which may be forged, does not redirect the video to
        it.
        """
        async with self.undisturbed():
            async with await Peer.connect(self.gateway, fresh_address()) as peer:
                await peer.play(vp8_frames(), 3, until=lambda: len(peer.pictures) > 10)
                local, remote = peer.ice.iceGatherer.getLocalParameters(), peer.remote
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind((fresh_address(), 0))
                    other.setblocking(False)
                    target = peer.ice._connection._nominated[1].remote_addr
                    other.sendto(stun_request(f"{remote.usernameFragment}:{local.usernameFragment}", remote.password), target)
                    # The camera keeps sending from its first address.
                    await peer.play(vp8_frames(), SECONDS)
                    self.assertLess(received_bytes(other), UNASKED_BYTES, "bytes that an address got which sent one packet")


def received_bytes(one):
    total = 0
    while True:
        try:
            total += len(one.recv(65_536))
        except (BlockingIOError, ConnectionError):
            return total
