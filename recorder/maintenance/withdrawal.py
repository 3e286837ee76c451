"""Let tiles that are lost count as not recorded, so that they can be recorded again."""

from __future__ import annotations

import os
import secrets
import socket
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from archive_schema.models import Claim, Commit, Withdrawal
from archive_schema.records import claim_epoch, put_commit
from recorder.maintenance.findings import Action
from recorder.repair_lock import REPAIRER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recorder.maintenance.findings import Found
    from recorder.maintenance.names import RecordedTile
    from recorder.maintenance.survey import Survey


def withdraw_tiles(survey: Survey, wrong: Sequence[tuple[RecordedTile, Found]]) -> list[Action]:
    """Put one commit that withdraws tiles from every commit that names their objects."""
    gone = {(tile.name.path, tile.name.step, tile.name.tile): tile.entry.aside for tile, _ in wrong}
    named: defaultdict[tuple[str, int, int, str], list[tuple[int, int]]] = defaultdict(list)
    for commit in survey.commits():
        for tiles in commit.tiles:
            asides = tiles.aside or ("",) * len(tiles.step)
            for step, tile, aside in zip(tiles.step, tiles.tile, asides, strict=True):
                if gone.get((tiles.field, step, tile)) == aside:
                    at = (commit.writer, commit.epoch, commit.sequence, tiles.field)
                    named[at].append((step, tile))
    claim = Claim(
        writer=REPAIRER,
        epoch=0,
        nonce=secrets.token_hex(16),
        time=datetime.now(UTC),
        host=socket.gethostname(),
        process=os.getpid(),
    )
    claim = claim_epoch(survey.store, survey.run_id, claim)
    commit = Commit(
        writer=claim.writer,
        epoch=claim.epoch,
        sequence=0,
        time=datetime.now(UTC),
        withdrawn=tuple(
            Withdrawal(
                writer=writer,
                epoch=epoch,
                sequence=sequence,
                field=field,
                step=tuple(step for step, _ in tiles),
                tile=tuple(tile for _, tile in tiles),
            )
            for (writer, epoch, sequence, field), tiles in named.items()
        ),
        end="repaired",
        reason=f"{len(wrong)} tiles were lost or damaged",
    )
    put_commit(survey.store, survey.run_id, commit)
    detail = "counts as not recorded now, and can be recorded again"
    return [Action(problem.finding, problem.key, detail) for _, problem in wrong]
