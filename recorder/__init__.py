"""Records the traces of samplers into an archive, as they happen."""

from recorder.capture import Capture
from recorder.recorded import Recorded
from recorder.recorder import RecordingStoppedWarning, TraceRecorder

__all__ = ["Capture", "Recorded", "RecordingStoppedWarning", "TraceRecorder"]
