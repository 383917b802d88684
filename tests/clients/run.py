#!/usr/bin/env python3
"""Runs the tests of WHIP and WHEP clients and prints their count in the format that tools/test.sh
parses.

usage: run.py [AREA[.Class[.test]]...]     default: all areas
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# As in tests/hostile/run.py.
STEPS = [[["protocol", "media"], ["peers"]]]

sys.path[:0] = [str(HERE), str(HERE.parent / "hostile")]

import importlib.util  # noqa: E402

# Both folders have a run.py.
spec = importlib.util.spec_from_file_location("hostile_run", HERE.parent / "hostile/run.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)

if __name__ == "__main__":
    sys.exit(runner.main(STEPS))
