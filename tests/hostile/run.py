#!/usr/bin/env python3
"""Runs the hostile tests and prints their count in the format that tools/test.sh parses.

usage: run.py [AREA[.Class[.test]]...]     default: all areas
"""

import logging
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
# Each list of areas is run by a process of its own, beside the others of its step. `packets` measures latencies.
STEPS = [[["streams", "datagrams"], ["channels", "offers", "access", "connections"]], [["packets"]]]


class Result(unittest.TextTestResult):
    """Says how long each test took."""

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        self.stream.writeln(f"    {time.monotonic() - self.began:.1f} s")
        super().stopTest(test)


def main(steps):
    """Runs the areas that were asked for, or all steps. Returns the exit status."""
    # Handled like Ctrl-C: unittest stops, and the started processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.argv[1:]:
        return run(sys.argv[1:])
    return any([run_beside(lanes) for lanes in steps])


def run_beside(lanes):
    """Runs these lists of areas at the same time. Returns the exit status."""
    outputs = [tempfile.TemporaryFile() for _ in lanes]
    running = [subprocess.Popen([sys.executable, sys.argv[0], *areas], stdout=output, stderr=output) for areas, output in zip(lanes, outputs)]
    try:
        for process, output in zip(running, outputs):
            process.wait()
            output.seek(0)
            print(output.read().decode(errors="replace"), end="", flush=True)
    finally:
        for process in running:
            process.terminate()
    return any(process.wait() for process in running)


def run(areas):
    # aiortc logs sessions that were ended by the other side, which is expected here.
    logging.disable(logging.CRITICAL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most == resource.RLIM_INFINITY else min(most, 1 << 16), most))
    suite = unittest.defaultTestLoader.loadTestsFromNames(areas)
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, resultclass=Result).run(suite)
    # A test with several failed subtests counts as one failed test.
    broken = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    started = [name for name in broken if not name.startswith(("setUpClass", "tearDownClass", "setUpModule"))]
    print(f"# pass {result.testsRun - len(started)}\n# fail {len(broken)}", flush=True)
    return bool(broken)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main(STEPS))
