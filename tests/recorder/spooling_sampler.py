"""A sampler whose store goes away, and which is killed then: flushed, away, spooled, killed."""

from __future__ import annotations

import sys
import time
from typing import Final

from recorder import TraceRecorder
from tests.recorder.outage import LATE, declaration, record

TILES_MEANWHILE: Final = 2 * 10 + 2 * (20 - LATE)

if __name__ == "__main__":
    url, place = sys.argv[1:]
    with TraceRecorder(url, "r", **declaration(), spool=place, deadline_s=8.0) as rec:
        assert rec.spool is not None
        for n in range(10):
            record(rec, n)
        rec.flush()
        sys.stdout.write("flushed\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for n in range(10, 20):
            record(rec, n)
        while rec.spool.tiles < TILES_MEANWHILE:
            time.sleep(0.01)
        sys.stdout.write("spooled\n")
        sys.stdout.flush()
        time.sleep(60)
