#!/usr/bin/env python3
"""Fail if a test report (JUnit XML) has a skipped test, or no test at all.

A test that is skipped because its S3 server or browser did not start is a hole that looks green.
The one thing that a machine may lack is a GPU: such a test says so by the word CUDA.
"""

from __future__ import annotations

import sys
from xml.etree import ElementTree as ET


def main(path: str) -> int:
    """Print what is wrong with the report at *path*; return the exit status."""
    cases = list(ET.parse(path).getroot().iter("testcase"))  # noqa: S314  our own pytest
    skipped = [
        f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
        for case in cases
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail" and "CUDA" not in (skip.get("message") or "")
    ]
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if not cases:
        print(f"{path}: expected tests, found none", file=sys.stderr)
    return 1 if skipped or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
