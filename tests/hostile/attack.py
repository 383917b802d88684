"""Assertions of every hostile test: the gateway is alive, its memory is bounded, and the
neighbour's frames keep coming, in order.
"""

import asyncio
import contextlib
import itertools
import os
import time
import unittest
from statistics import median

from gateway import Gateway, cpu_seconds, machine_seconds
from neighbour import Neighbour

# Maximum growth of the memory in MB during an attack.
MEMORY_MB = 150
# Minimum share of its frame rate that the neighbour keeps.
KEPT = 0.7
# Number of seconds for which the neighbour's usual frame rate is measured before the first attack.
QUIET_SECONDS = 5
# Timeout in seconds for /healthz after an attack.
ANSWERED_S = 5
# If other programs use more than this share of the machine, the neighbour's frame rate and latency
# are not judged.
OTHERS = 0.25
_addresses = itertools.count(1)


def fresh_address():
    """Returns an unused address of the loopback network, so that limits per address do not carry
    over between tests.
    """
    number = next(_addresses)
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


class Attack(unittest.IsolatedAsyncioTestCase):
    """One gateway and one neighbour for all tests of a class; they are replaced if a test has ended
    the gateway.
    """

    config = ""
    gateway = neighbour = None
    # Frames a second of a neighbour that nobody disturbs: the same on every gateway of this machine.
    usual_fps = None

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(cls.config)
        cls.neighbour = Neighbour(cls.gateway)
        # Its first second is not a whole one.
        first, *quiet = cls.neighbour.wait_for_seconds(time.monotonic(), 1 if Attack.usual_fps else 1 + QUIET_SECONDS)
        Attack.usual_fps = Attack.usual_fps or median(second.fps for second in quiet)

    @classmethod
    def tearDownClass(cls):
        figures, gateway = cls.neighbour.finish(), cls.gateway
        cls.neighbour = cls.gateway = None
        gateway.stop()
        if figures is None:
            raise AssertionError("the neighbour's session has no figures")
        wrong = {name: figures[name] for name in ("order_errors", "raw_leaks", "sessions_lost", "setup_failures") if figures[name]}
        if wrong:
            raise AssertionError(f"the neighbour saw {wrong}")

    def setUp(self):
        cls = type(self)
        if cls.gateway.process.poll() is not None or cls.neighbour.has_stopped():
            cls.neighbour.finish()
            cls.gateway.stop()
            cls.setUpClass()

    def shortDescription(self):
        return None  # The test names are sufficient

    @classmethod
    def others_cpu_seconds(cls):
        """Returns the CPU time of everything on this machine that does not belong to the test."""
        return machine_seconds() - sum(map(cpu_seconds, (cls.gateway.pid, cls.neighbour.process.pid, os.getpid())))

    def is_machine_taken(self, since, others):
        """Returns whether other programs have used too much of the machine since then to judge the
        attack.
        """
        share = (self.others_cpu_seconds() - others) / (time.monotonic() - since) / os.cpu_count()
        if share > OTHERS:
            print(f"others take {share:.0%} of this machine: the neighbour is not judged ...", end=" ", flush=True)
        return share > OTHERS

    def assert_alive(self):
        code = self.gateway.process.poll()
        self.assertIsNone(code, f"the gateway has ended with {code}:\n{self.gateway.log()}")
        deadline = time.monotonic() + ANSWERED_S
        while not self.gateway.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertTrue(self.gateway.is_alive(), f"the gateway does not answer /healthz within {ANSWERED_S} s after the attack")

    @contextlib.asynccontextmanager
    async def undisturbed(self, kept=KEPT):
        """Context manager around an attack, with the conditions that must hold during and after it.
        """
        cls = type(self)
        usual = self.usual_fps
        resident = self.gateway.resident_mb()
        self.gateway.forget_peak()
        start, others = time.monotonic(), cls.others_cpu_seconds()
        try:
            yield
        finally:
            # Checked first, because other failures may follow from it.
            self.assert_alive()
        during = await asyncio.to_thread(cls.neighbour.wait_for_seconds, start, 1)
        fps = median(second.fps for second in during)
        if fps >= kept * usual or not self.is_machine_taken(start, others):
            self.assertGreaterEqual(fps, kept * usual, f"frames a second of the neighbour beside the attack: {during}")
        peak, grown = self.gateway.peak_mb() - resident, self.gateway.resident_mb() - resident
        self.assertLess(peak, MEMORY_MB, "MB that the gateway took at most")
        self.assertLess(grown, MEMORY_MB, "MB that the gateway kept")
        self.assert_alive()


async def each(attempts, at_once=6):
    """Runs coroutines, a few at a time; returns their results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(attempt):
        async with gate:
            return await attempt

    results = await asyncio.gather(*map(one, attempts), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
