"""Records the traces of samplers into an archive, as they happen."""

from recorder.recorded import Recorded
from recorder.recorder import RecordingStoppedWarning, TraceRecorder

__all__ = ["Recorded", "RecordingStoppedWarning", "TraceRecorder"]
