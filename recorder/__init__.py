"""Records the traces of samplers into an archive, as they happen."""

from recorder.capture import Capture
from recorder.plan import Plan
from recorder.recorded import Recorded
from recorder.recorder import RecordingStoppedWarning, RunNotSealedWarning, TraceRecorder

__all__ = [
    "Capture",
    "Plan",
    "Recorded",
    "RecordingStoppedWarning",
    "RunNotSealedWarning",
    "TraceRecorder",
]
