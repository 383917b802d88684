"""Attacks on the HTTP server: incomplete requests, a byte per second, answers that are not read,
and thousands of connections.
"""

import asyncio
import socket
import time

from attack import Attack, each, fresh_address
from gateway import PATIENCE_S

# Timeout in seconds for a request that is never completed; the gateway's own limits are 10 s for
# the head and 15 s for the body.
CLOSED_S = 20
# Timeout in seconds for an answer that is not read: 30 s, and the time to fill the buffers.
UNREAD_S = 45
IDLE = 2000
# Timeout in seconds for /healthz on a busy machine.
SOON_S = 5

HEAD = b"POST /offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Connections(Attack):
    async def open(self, address=None):
        return await asyncio.open_connection(self.gateway.host, self.gateway.port, local_addr=(address or fresh_address(), 0))

    async def seconds_until_closed(self, first, repeated=b"", every=1.0, patience=CLOSED_S + 10):
        """Sends something, and more from time to time; returns how long the gateway kept the
        connection.
        """
        reader, writer = await self.open()
        start = time.monotonic()

        async def talk():
            writer.write(first)
            while repeated:
                await asyncio.sleep(every)
                writer.write(repeated)

        async def listen():
            while await reader.read(65_536):
                pass

        talking = asyncio.create_task(talk())
        try:
            await asyncio.wait_for(listen(), patience)
        except (ConnectionError, asyncio.TimeoutError):
            pass
        finally:
            talking.cancel()
            writer.close()
        return time.monotonic() - start

    async def test_requests_that_do_not_come_to_an_end(self):
        cases = {
            "nothing": (b"",),
            "half a head": (HEAD,),
            "a head byte by byte": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a"),
            "a head line by line": (HEAD, b"X-A: b\r\n"),
            "a body that does not come": (HEAD + b"Content-Length: 1000\r\n\r\n",),
            "a body byte by byte": (HEAD + b"Content-Length: 1000\r\n\r\n", b"{"),
            "chunks without an end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
            "half a second request": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD, b"X"),
            "a head of megabytes": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * 4_000_000,),
            "thousands of header lines": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,),
            "TLS": (bytes.fromhex("160301020001000001fc0303") + b"\0" * 100,),
            "noise": (bytes(range(256)) * 10,),
        }
        async with self.undisturbed():
            times = await asyncio.gather(*(self.seconds_until_closed(*case) for case in cases.values()))
        for name, seconds in zip(cases, times):
            with self.subTest(name):
                self.assertLess(seconds, CLOSED_S)

    async def test_connections_that_begin_nothing_hold_nobody_up(self):
        """Dozens of incomplete requests from one address; other clients are answered quickly
        meanwhile.
        """
        address = fresh_address()
        async with self.undisturbed():
            held = [await self.open(address) for _ in range(40)]
            for _, writer in held:
                writer.write(HEAD + b"Content-Length: 1000\r\n\r\n{")
            waits = await each([asyncio.to_thread(self.gateway.request, "GET", path) for path in ("/healthz", "/", "/api/effects") * 5], at_once=2)
            for _, writer in held:
                writer.close()
        self.assertEqual({answer.status for answer in waits}, {200})
        self.assertLess(max(answer.seconds for answer in waits), SOON_S)

    async def test_a_reader_that_does_not_read(self):
        """Requests answers and reads none; the gateway does not keep the connection for long."""
        address = fresh_address()
        async with self.undisturbed():
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reader:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.bind((address, 0))
                reader.connect((self.gateway.host, self.gateway.port))
                reader.setblocking(False)
                port = reader.getsockname()[1]
                request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
                start = time.monotonic()
                while self.gateway.holds(address, port) and time.monotonic() - start < UNREAD_S + 5:
                    try:
                        reader.send(request)
                    except OSError:
                        pass  # The local buffer is full, or the gateway has closed the connection
                    await asyncio.sleep(0.5)
                self.assertLess(time.monotonic() - start, UNREAD_S, "seconds that the gateway kept the connection")

    async def idle(self, addresses, most):
        """Opens thousands of idle connections; checks that other clients are answered meanwhile."""
        files = self.gateway.open_files()
        held = []
        async with self.undisturbed():
            try:
                for number in range(IDLE):
                    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                    held.append(one)
                    one.setblocking(False)
                    one.bind((addresses[number % len(addresses)], 0))
                    try:
                        one.connect((self.gateway.host, self.gateway.port))
                    except BlockingIOError:
                        pass
                    except OSError:
                        break
                    if number % 50 == 0:
                        await asyncio.sleep(0.01)
                with self.subTest("there are as many as the limits allow"):
                    self.assertLess(self.gateway.open_files() - files, most)
                start = time.monotonic()
                answered = None
                while answered is None and time.monotonic() - start < CLOSED_S:
                    try:
                        answered = await asyncio.to_thread(self.gateway.request, "GET", "/healthz", timeout=SOON_S)
                    except OSError:
                        await asyncio.sleep(0.2)
                waited = time.monotonic() - start
            finally:
                for one in held:
                    one.close()
        self.assertIsNotNone(answered, f"/healthz was not answered within {CLOSED_S} s")
        deadline = time.monotonic() + PATIENCE_S
        while self.gateway.open_files() > files + 20 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        self.assertLessEqual(self.gateway.open_files(), files + 20, "files that stay open")
        return waited

    async def test_thousands_of_idle_connections_of_one_address(self):
        # As many as are served, plus those that are being refused.
        self.assertLess(await self.idle([fresh_address()], 64 + 64 + 10), SOON_S, "seconds until another address was answered")

    async def test_thousands_of_idle_connections_of_many_addresses(self):
        await self.idle([fresh_address() for _ in range(40)], 1100)
