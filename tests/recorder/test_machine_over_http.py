"""Whatever happens to a recorder, in whatever order, by a server as in a folder."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from archive_schema.store import open_store
from tests.recorder.test_state_machine import RecordedRun
from tests.server_fixture import served


class RunOverHttp(RecordedRun):
    """A run that is recorded, left, resumed, taken over and sealed in any order, over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        url = self.stack.enter_context(served(self.store.url, allow_push=True))
        self.store = open_store(url)


TestRunOverHttp = RunOverHttp.TestCase
TestRunOverHttp.settings = settings(
    max_examples=3,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
