"""The battery: whatever happens, nothing acknowledged is lost and no reader is deceived.

``python -m tests.faults.report`` tries each scenario many times and writes what it counted to
``docs/reliability.md``; here each is tried once, with a seed that is part of the test's name.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.scene import Scene
from tests.faults.world import Kind, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.s3_server import S3Server

CASES = [
    (scenario, kind)
    for scenario in SCENARIOS
    if not scenario.only_in_report
    for kind in scenario.kinds
]


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[Kind], World]]:
    """Give the world of a kind of store, which all scenarios share."""
    worlds: dict[Kind, World] = {}
    with ExitStack() as stack:

        def of_kind(kind: Kind) -> World:
            if kind not in worlds:
                s3: S3Server | None = request.getfixturevalue("s3") if kind is Kind.S3 else None
                made = World(kind, tmp_path_factory.mktemp(kind), s3)
                worlds[kind] = stack.enter_context(made)
            return worlds[kind]

        yield of_kind


@pytest.mark.parametrize(
    ("scenario", "kind"), CASES, ids=[f"{scenario.name}-{kind}" for scenario, kind in CASES]
)
def test_nothing_is_lost_and_nobody_deceived(
    world: Callable[[Kind], World], scenario: Scenario, kind: Kind
) -> None:
    """After each: acknowledged tiles are there, reads were true, the run can be completed."""
    scene = Scene(
        world(kind), scenario.name, 1, honest=set(scenario.honest), versions=scenario.versions
    )
    with scene:
        scenario.act(scene)
        outcome = scene.finish()

    assert outcome.lost == []
    assert outcome.wrong == []
    assert outcome.incomplete == []
    assert outcome.faults
    assert outcome.reads
