"""Records the traces of samplers into an archive, as they happen."""

from recorder.capture import Capture
from recorder.ownership import part
from recorder.plan import Plan
from recorder.ranks import Rank, this_rank
from recorder.recorded import Recorded
from recorder.recorder import RecordingStoppedWarning, RunNotSealedWarning, TraceRecorder

__all__ = [
    "Capture",
    "Plan",
    "Rank",
    "Recorded",
    "RecordingStoppedWarning",
    "RunNotSealedWarning",
    "TraceRecorder",
    "part",
    "this_rank",
]
