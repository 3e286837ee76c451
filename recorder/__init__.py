"""Records the traces of samplers into an archive, as they happen."""

from recorder.capture import Capture
from recorder.ownership import part
from recorder.plan import Plan
from recorder.ranks import Rank, this_rank
from recorder.recorded import Recorded
from recorder.recorder import (
    RecordingStoppedWarning,
    RunNotSealedWarning,
    SpooledWarning,
    TraceRecorder,
)
from recorder.session import NoSpoolWarning
from recorder.spool import Spool

__all__ = [
    "Capture",
    "NoSpoolWarning",
    "Plan",
    "Rank",
    "Recorded",
    "RecordingStoppedWarning",
    "RunNotSealedWarning",
    "Spool",
    "SpooledWarning",
    "TraceRecorder",
    "part",
    "this_rank",
]
