"""A well-behaved session during the attack: `ooblex bench` in a process of its own, so that the
attacker's work does not delay it.
"""

import atexit
import json
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

from gateway import BINARY, PATIENCE_S, end

SECOND = re.compile(r"\b\d+ s\b.* (?P<shown>[\d.]+) fps shown, (?P<processed>[\d.]+) processed")
# Longer than the tests take; the bench is told to end when they are done.
LONGEST_S = 900


@dataclass
class Second:
    """The result of one second, and the time at which that second ended (`time.monotonic`)."""

    at: float
    fps: float
    # 95 % of its frames came back within this time; known once the session has been finished.
    p95_ms: float | None = None


class Neighbour:
    """One session of the effect `delay`, and its result in each second."""

    def __init__(self, gateway):
        self.folder = tempfile.TemporaryDirectory(prefix="ooblex-neighbour-")
        self.figures_path = pathlib.Path(self.folder.name) / "figures.json"
        flags = ["--effect", "delay", "--set", "ms=10", "--size", "320x240", "--warm-up", "1", "--duration", str(LONGEST_S), "--threads", "1"]
        self.process = subprocess.Popen(
            [BINARY, "bench", gateway.url, *flags, "--json", str(self.figures_path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        atexit.register(end, self.process)
        self.seconds = []
        self.said = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if match := SECOND.search(line):
                self.seconds.append(Second(time.monotonic(), float(match["processed"])))

    def wait_for_seconds(self, since, count):
        """Waits until this number of seconds that began after `since` are over; returns them."""
        deadline = time.monotonic() + PATIENCE_S + count
        while time.monotonic() < deadline and self.process.poll() is None:
            found = [second for second in self.seconds if second.at >= since + 1 and second.fps > 0 or second.at >= since + 2]
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError("the neighbour's session has ended or stands still: " + " | ".join(self.said[-3:]))

    def has_stopped(self):
        """Returns whether its session has ended, or no frames come back any more."""
        return self.process.poll() is not None or (len(self.seconds) > 2 and not any(second.fps for second in self.seconds[-2:]))

    def finish(self):
        """Ends the session and returns its results, as written by `ooblex bench --json`."""
        deadline = time.monotonic() + PATIENCE_S
        # The first second is the warm-up; without a second one there are no results.
        while len(self.seconds) < 3 and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        end(self.process, signal.SIGINT)
        self.reader.join(PATIENCE_S)
        self.process.stderr.close()
        figures = json.loads(self.figures_path.read_text()) if self.figures_path.exists() else None
        for second, told in zip(self.seconds, figures["series"] if figures else []):
            second.p95_ms = told["latency_ms"]["p95"]
        self.folder.cleanup()
        return figures
