"""What is done to a run, one scenario after another.

A scenario acts on a `Scene`; `Scene.finish` holds what is left to the truth.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from recorder.maintenance import repair_run, verify_run
from tests.faults.proxy import Action, Fault
from tests.faults.small_disk import MAY_MOUNT, SmallDisk
from tests.faults.truth import tile_at
from tests.faults.watch import CUT
from tests.faults.world import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.scene import Sampler, Scene

UNREACHABLE: Final = "store-unreachable"
REPLACED: Final = "writer-replaced"
SEALED: Final = "run-sealed"
DIFFERS: Final = "tile-differs"
FULL: Final = "store-full"
DAMAGED: Final = "tile-damaged"
LOST: Final = "tile-lost"
WITHDRAWN: Final = "withdrawn"
"""A tile that was recorded may be recorded no more; no error, but honest too."""
SPOOLED: Final = "spooled"
DEADLINE: Final = "deadline-passed"

TILE_KEY: Final = r"/trace\.zarr/.*/c\."
COMMIT_KEY: Final = r"/commits/.*/\d{8}\.json"
CONDITIONAL_KEYS: Final = {
    "manifest": r"/run\.json",
    "field": r"/fields/.*\.json",
    "claim": r"/claim\.json",
    "tile": TILE_KEY,
    "commit or end": COMMIT_KEY,
    "sealing marker": r"/sealing\.json",
    "seal": r"/seal\.json",
}
"""What is put on the condition that it is not there, by a pattern of its key."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of disaster."""

    name: str
    what: str
    """What is done, for the report."""
    act: Callable[[Scene], None]
    kinds: tuple[Kind, ...] = (Kind.DISK, Kind.S3)
    honest: frozenset[str] = frozenset()
    """Kinds of errors that a reader may meet."""
    versions: int = 1
    """Samplers with values of their own."""
    repeats: int = 1
    """How often the report tries it, on each kind of store."""
    only_in_report: bool = False
    """Whether the tests leave it to the report, because another holds it too."""


def killed_recorder(scene: Scene) -> None:
    """Kill five lives of a sampler: while it opens, records, or seals."""
    moments = [("begin", 0.1), ("open", 0.25), ("open", 0.25), ("open", 0.1), ("sealing", 0.03)]
    for word, longest_s in scene.chance.sample(moments, len(moments)):
        if word == "sealing":
            continue
        _life(scene, word, longest_s)
    _life(scene, "sealing", 0.03)


def killed_between_fields(scene: Scene) -> None:
    """Kill a recorder when one field of its first steps is committed, and another unheard of."""
    _on_recorders(scene, Action.RESET, method="PUT", key=r"/fields/layers/")
    sampler = scene.sampler()
    scene.await_committed("trace/x")
    scene.outcome.faults += sampler.kill()
    scene.restore()


def restarted_store(scene: Scene) -> None:
    """Kill the S3 server twice while it is written to and read from, and start it again."""
    sampler = scene.sampler()
    assert scene.world.s3 is not None
    for steps in (4, 20):
        sampler.await_acknowledged(steps)
        scene.pause(0.1)
        scene.world.s3.restart()
        scene.outcome.faults += 1
    scene.expect(sampler.end(), "")


def hanging_store(scene: Scene) -> None:
    """Let the S3 server take connections and not answer, for a while."""
    sampler = scene.sampler()
    assert scene.world.s3 is not None
    sampler.await_acknowledged(4)
    with scene.world.s3.paused():
        time.sleep(1 + scene.chance.random())
        scene.outcome.faults += 1
    scene.expect(sampler.end(), "")


def cut_uploads(scene: Scene) -> None:
    """Break connections in the middle of bodies that are put."""
    for at in (10, 100, 1000, 20_000):
        _on_recorders(scene, Action.CUT_UPLOAD, method="PUT", probability=0.05, at=at)
    scene.expect(scene.sampler().end(), "")


def cut_answers(scene: Scene) -> None:
    """Break connections in the middle of answers, to recorders and readers."""
    for way in scene.world.ways:
        for action in (Action.CUT_ANSWER, Action.END_ANSWER):
            for at in (0, 50, 1000):
                fault = Fault(action, method="GET", probability=0.05, at=at)
                scene.disturb(way, fault)
    scene.expect(scene.sampler().end(), "")


def short_answers(scene: Scene) -> None:
    """Answer the first question for each object with less of it, and call it the whole."""
    at = scene.chance.choice((0, 50, 1000))
    for way in scene.world.ways:
        fault = Fault(
            Action.SHORT_ANSWER, method="GET", key=r"/runs/.*/", once_each=True, at=at
        )  # fmt: skip
        scene.disturb(way, fault)
    scene.expect(scene.sampler().end(), "")


def slow_answers(scene: Scene) -> None:
    """Delay requests, and let bodies stall."""
    for way in scene.world.ways:
        scene.disturb(way, Fault(Action.DELAY, probability=0.2, seconds=0.2))
        scene.disturb(way, Fault(Action.STALL_ANSWER, probability=0.1, at=30, seconds=0.2))
    scene.expect(scene.sampler().end(), "")


def storm(scene: Scene) -> None:
    """Answer a third of all requests by 500 or 503, some of them after they were carried out."""
    # Those that name a time are few: each costs a second of waiting, and nothing else.
    kinds = ((500, None, 0.08), (503, None, 0.08), (503, 1, 0.01))
    for way in scene.world.ways:
        for status, retry_after_s, share in kinds:
            for action in (Action.REFUSE, Action.SPOIL_ANSWER):
                fault = Fault(action, probability=share, status=status, retry_after_s=retry_after_s)
                scene.disturb(way, fault)
    scene.expect(scene.sampler().end(), "")


def unavailable_to_readers(scene: Scene) -> None:
    """Refuse every read for a while; the service answers 503 and recovers by itself."""
    sampler = scene.sampler()
    sampler.await_acknowledged(6)
    fault = scene.disturb(scene.world.for_readers, Fault(Action.REFUSE, status=503))
    scene.await_refusal(UNREACHABLE)
    assert fault.hits
    scene.restore()
    scene.expect(sampler.end(), "")


def flipped_answers(scene: Scene) -> None:
    """Flip a bit of the first answer for each object that is read."""
    for way in scene.world.ways:
        fault = Fault(
            Action.FLIP_ANSWER, method="GET", key=r"/runs/.*/", once_each=True,
            at=scene.chance.randrange(60),
        )  # fmt: skip
        scene.disturb(way, fault)
    scene.expect(scene.sampler().end(), "")


def flipped_uploads(scene: Scene) -> None:
    """Flip a bit of the first put of each object."""
    at = scene.chance.randrange(60)
    _on_recorders(scene, Action.FLIP_UPLOAD, method="PUT", once_each=True, at=at)
    scene.expect(scene.sampler().end(), "")


def lost_answers(pattern: str) -> Callable[[Scene], None]:
    """Return the scenario that loses the first answer to each put of a key of *pattern*."""

    def act(scene: Scene) -> None:
        # What the first leaves is lost by the second, and some puts fail twice.
        for action, probability in ((Action.SPOIL_ANSWER, 0.5), (Action.LOSE_ANSWER, 1.0)):
            _on_recorders(
                scene, action, method="PUT", key=pattern, once_each=True, probability=probability
            )
        scene.expect(scene.sampler().end(), "")

    return act


def two_of_one_name(scene: Scene) -> None:
    """Start the same recorder twice: one is replaced, the other does its work."""
    endings = [sampler.end() for sampler in _together(scene, {}, {})]
    for ending in endings:
        scene.expect(ending, "", REPLACED, SEALED)
    if all(ending.kind == REPLACED for ending in endings):
        scene.outcome.incomplete.append(f"both were replaced: {endings}")


def two_of_one_mind(scene: Scene) -> None:
    """Let two recorders of different names record the same values."""
    for sampler in _together(scene, {"writer": "one"}, {"writer": "two"}):
        scene.expect(sampler.end(), "", SEALED)


def two_who_differ(scene: Scene) -> None:
    """Let two recorders record other values in the same tiles: the first values stay."""
    both = _together(
        scene, {"writer": "one", "meets": True}, {"writer": "two", "version": 1, "meets": True}
    )
    # Neither may find that all is recorded already, and have nothing to say against it.
    for sampler in both:
        assert sampler.await_word("ready")
    for sampler in both:
        sampler.begin()
    endings = [sampler.end() for sampler in both]
    for ending in endings:
        scene.expect(ending, "", DIFFERS, SEALED)
    if not any(ending.kind for ending in endings):
        scene.outcome.incomplete.append("two recorders differed, and neither was told")
    scene.outcome.faults += 1


def zombie(scene: Scene) -> None:
    """Stop a recorder, let another take its part over and record, and let the first go on."""
    first = scene.sampler()
    first.await_acknowledged(6)
    scene.pause(0.05)
    first.stop()
    successor = scene.sampler(version=1, seal_at_exit=False)
    scene.expect(successor.end(), "")
    before = _objects(scene)
    first.go_on()
    scene.expect(first.end(), REPLACED, DIFFERS)
    scene.outcome.faults += 1
    _expect_unchanged(scene, before)


def held_put(pattern: str) -> Callable[[Scene], None]:
    """Return the scenario in which a put arrives only after its recorder was replaced."""

    def act(scene: Scene) -> None:
        first = scene.sampler()
        first.await_acknowledged(6)
        held = _on_recorders(scene, Action.HOLD, method="PUT", key=pattern, times=1)
        held.held.wait(30)
        first.stop()
        successor = scene.sampler(version=1, seal_at_exit=False)
        scene.expect(successor.end(), "")
        before = _objects(scene)
        held.released.set()
        first.go_on()
        scene.expect(first.end(), REPLACED, DIFFERS)
        _expect_unchanged(scene, before)

    return act


def killed_service(scene: Scene) -> None:
    """Kill the process that serves, and start it again."""
    sampler = scene.sampler(pace_s=0.02)
    for steps in (4, 16):
        sampler.await_acknowledged(steps)
        scene.pause(0.1)
        scene.world.service.restart()
        scene.outcome.faults += 1
    scene.expect(sampler.end(), "")


def jumping_clocks(scene: Scene) -> None:
    """Set the clocks of recorder and service wrong, to and fro, while they work."""
    sampler = scene.sampler(waits=True)
    sampler.await_acknowledged(1)
    scene.expect_status("recording")
    for steps in (6, 24, 48):
        sampler.await_acknowledged(steps)
        for clock in (scene.world.recorder_clock, scene.world.service_clock):
            clock.set(scene.chance.choice((-1, 1)) * scene.chance.choice((90, 5000, 86400 * 30)))
            scene.outcome.faults += 1
        scene.expect_status("recording")
    scene.expect(sampler.end(), "")


def full_disk(scene: Scene) -> None:
    """Record onto a disk that is too small, twice; then it becomes larger."""
    disk = scene.keep(SmallDisk(scene.world.folder / "store" / scene.prefix, 700_000))
    for _ in range(2):
        scene.expect(scene.sampler().end(), FULL)
        scene.outcome.faults += 1
    disk.grow(64_000_000)


def damaged_objects(scene: Scene) -> None:
    """Flip a bit in a tile, cut another, remove a third; find, withdraw and record them again."""
    scene.expect(scene.sampler(seal_at_exit=False).end(), "")
    store = scene.world.store
    keys = [found.key for found in store.objects(scene.prefix) if re.search(TILE_KEY, found.key)]
    flipped, cut, removed = scene.chance.sample(sorted(keys), 3)
    data = store.read(flipped)
    store.write(flipped, bytes([data[0] ^ 1]) + data[1:])
    store.write(cut, store.read(cut)[: scene.chance.randrange(20)])
    store.delete(removed)
    scene.outcome.faults += 3
    damage = {flipped: DAMAGED, cut: DAMAGED, removed: LOST}
    scene.expect_refused({tile_at(key): kind for key, kind in damage.items()})
    found = {one.key: str(one.finding) for one in verify_run(store, scene.run).found}
    if found != damage:
        scene.outcome.incomplete.append(f"verify found {found} instead of {damage}")
    repair_run(store, scene.run, withdraw=True)
    scene.expect(scene.sampler().end(), "")


def away(scene: Scene) -> None:
    """Refuse every request of a recorder until it gives up; what it had is in its spool."""
    sampler = _cut_off(scene)
    scene.expect(sampler.end(), SPOOLED)
    scene.restore()
    scene.drain()


def killed_while_away(scene: Scene) -> None:
    """Refuse every request of a recorder, and kill it while it fills its spool."""
    sampler = _cut_off(scene)
    sampler.await_spooled(6)
    scene.pause(0.5)
    scene.outcome.faults += sampler.kill()
    scene.restore()
    scene.drain()


def full_spool(scene: Scene) -> None:
    """Refuse every request of a recorder whose spool has no room for what it records."""
    scene.keep(SmallDisk(scene.spool, 400_000))
    sampler = _cut_off(scene)
    scene.expect(sampler.end(), SPOOLED, DEADLINE, FULL, UNREACHABLE)
    scene.restore()
    scene.drain()


def _cut_off(scene: Scene) -> Sampler:
    """Start a sampler, and let it find the store away once it recorded something."""
    sampler = scene.sampler(version=1, deadline_s=0.5, flush_every=6)
    sampler.await_acknowledged(6)
    _on_recorders(scene, Action.REFUSE, status=503)
    return sampler


def _life(scene: Scene, word: str, longest_s: float) -> None:
    sampler = scene.sampler()
    if sampler.await_word(word):
        scene.pause(longest_s)
    scene.outcome.faults += sampler.kill()


def _on_recorders(scene: Scene, action: Action, **options: Any) -> Fault:
    return scene.disturb(scene.world.for_recorders, Fault(action, **options))


def _together(scene: Scene, *orders: dict[str, Any]) -> list[Sampler]:
    """Start samplers that record at the same time."""
    samplers = [scene.sampler(**order) for order in orders]
    scene.outcome.faults += 1
    return samplers


def _objects(scene: Scene) -> dict[str, bytes]:
    """Return every object of the run, but for heartbeats, which are rewritten all the time."""
    store = scene.world.store
    return {
        found.key: store.read(found.key)
        for found in store.objects(scene.prefix)
        if "/heartbeats/" not in found.key
    }


def _expect_unchanged(scene: Scene, before: dict[str, bytes]) -> None:
    """Note every object that is not as it was."""
    after = _objects(scene)
    changed = [key for key, data in before.items() if after.get(key) != data]
    scene.outcome.incomplete += [f"{key} was changed by a zombie" for key in changed]


SCENARIOS: Final = (
    Scenario(
        "killed-recorder",
        "recorder killed (`kill -9`) while it opens, records or seals: 5 lives a run",
        killed_recorder,
        repeats=11,
    ),
    Scenario(
        "killed-between-fields",
        "recorder killed when one field of a step was committed, and another not declared yet",
        killed_between_fields,
        kinds=(Kind.S3,),
    ),
    Scenario(
        "restarted-store",
        "S3 server killed and started again, twice, under load",
        restarted_store,
        kinds=(Kind.S3,),
        honest=frozenset({UNREACHABLE}),
    ),
    Scenario(
        "hanging-store",
        "S3 server that takes connections and does not answer, for 1 to 2 s",
        hanging_store,
        kinds=(Kind.S3,),
        honest=frozenset({UNREACHABLE}),
    ),
    Scenario(
        "cut-uploads",
        "connections reset in the middle of uploads",
        cut_uploads,
        kinds=(Kind.S3, Kind.HTTP),
    ),
    Scenario(
        "cut-answers",
        "connections reset or closed in the middle of answers",
        cut_answers,
        kinds=(Kind.S3,),
        honest=frozenset({UNREACHABLE}),
    ),
    Scenario(
        "short-answers",
        "answers that are shorter than the object and say that they are the whole",
        short_answers,
        kinds=(Kind.S3,),
    ),
    Scenario(
        "slow-answers",
        "answers delayed, and stalled in the middle of bodies",
        slow_answers,
        kinds=(Kind.S3,),
    ),
    Scenario(
        "storm",
        "500 and 503, with and without Retry-After, before and after the request was carried out",
        storm,
        kinds=(Kind.S3, Kind.HTTP),
        honest=frozenset({UNREACHABLE}),
    ),
    Scenario(
        "unavailable-to-readers",
        "503 to every read of the service, until it told its clients",
        unavailable_to_readers,
        kinds=(Kind.S3,),
        honest=frozenset({UNREACHABLE}),
    ),
    Scenario(
        "flipped-answers",
        "a bit flipped in the first answer for each object",
        flipped_answers,
        kinds=(Kind.S3,),
    ),
    Scenario(
        "flipped-uploads",
        "a bit flipped in the first put of each object",
        flipped_uploads,
        kinds=(Kind.S3, Kind.HTTP),
    ),
    Scenario(
        "lost-answers",
        "lost answer to each conditional put of a run",
        lost_answers("|".join(CONDITIONAL_KEYS.values())),
        kinds=(Kind.S3, Kind.HTTP),
    ),
    *(
        Scenario(
            f"lost-answer-{name.replace(' ', '-')}",
            f"lost answer to the conditional put of each {name}",
            lost_answers(pattern),
            kinds=(Kind.S3,),
            only_in_report=True,
        )
        for name, pattern in CONDITIONAL_KEYS.items()
    ),
    Scenario(
        "two-of-one-name",
        "the same recorder started twice at once",
        two_of_one_name,
    ),
    Scenario(
        "two-of-one-mind",
        "two recorders of different names, the same values",
        two_of_one_mind,
    ),
    Scenario(
        "two-who-differ",
        "two recorders of different names, other values in the same tiles",
        two_who_differ,
        versions=2,
    ),
    Scenario(
        "zombie",
        "a recorder stopped, its part taken over with other values, and continued",
        zombie,
        kinds=(Kind.DISK, Kind.S3, Kind.HTTP),
        versions=2,
    ),
    Scenario(
        "held-tile",
        "the put of a tile that arrives after its recorder was replaced",
        held_put(TILE_KEY),
        kinds=(Kind.S3,),
        versions=2,
    ),
    Scenario(
        "held-commit",
        "the put of a commit that arrives after its recorder was replaced",
        held_put(COMMIT_KEY),
        kinds=(Kind.S3,),
        versions=2,
    ),
    Scenario(
        "killed-service",
        "the process that serves killed and started again, twice",
        killed_service,
        kinds=(Kind.DISK, Kind.S3, Kind.HTTP),
        honest=frozenset({CUT}),
    ),
    Scenario(
        "jumping-clocks",
        "clocks of recorder and service set wrong by 90 s to 30 days, to and fro, while they work",
        jumping_clocks,
    ),
    Scenario(
        "damaged-objects",
        "one tile's object flipped, one cut, one removed; then `verify`, `repair --withdraw`",
        damaged_objects,
        honest=frozenset({DAMAGED, LOST, WITHDRAWN}),
    ),
    Scenario(
        "away",
        "store out of reach until the recorder had all in its spool and ended",
        away,
        kinds=(Kind.S3, Kind.HTTP),
        versions=2,
    ),
    Scenario(
        "killed-while-away",
        "store out of reach, and the recorder killed while it filled its spool",
        killed_while_away,
        kinds=(Kind.S3,),
        versions=2,
    ),
    *(
        [
            Scenario(
                "full-disk",
                "disk of the store full, twice, and enlarged",
                full_disk,
                kinds=(Kind.DISK,),
            ),
            Scenario(
                "full-spool",
                "store out of reach, and the disk of the spool full",
                full_spool,
                kinds=(Kind.S3,),
                versions=2,
            ),
        ]
        if MAY_MOUNT
        else []
    ),
)
