#!/usr/bin/env python3
"""Runs the hostile tests and prints their count in the format that tools/test.sh parses.

usage: run.py [AREA[.Class[.test]]...]     default: all areas
"""

import logging
import pathlib
import resource
import signal
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
AREAS = ["streams", "offers", "channels", "packets", "datagrams", "connections", "access"]


def main(areas):
    # aiortc logs sessions that were ended by the other side, which is expected here.
    logging.disable(logging.CRITICAL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most == resource.RLIM_INFINITY else min(most, 1 << 16), most))
    # Handled like Ctrl-C: unittest stops, and the started processes are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:] or areas)
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    # A test with several failed subtests counts as one failed test.
    broken = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    started = [name for name in broken if not name.startswith(("setUpClass", "tearDownClass", "setUpModule"))]
    print(f"# pass {result.testsRun - len(started)}\n# fail {len(broken)}", flush=True)
    return bool(broken)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main(AREAS))
