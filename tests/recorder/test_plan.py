"""A plan says what recording amounts to, before and while it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from recorder import Capture, TraceRecorder

if TYPE_CHECKING:
    from archive_schema.store import Store


def test_a_plan_counts_bytes_and_objects(folder_store: Store) -> None:
    model = nn.Sequential(nn.Linear(4, 8))
    with TraceRecorder(folder_store, "r", steps=100, samples=30, max_bytes=10**6) as rec:
        rec.attach(model, {"0": Capture(every=4)})
        before = rec.plan()
        assert before.fields == ()
        assert before.waiting == ("0",)
        model(torch.zeros(10, 4))
        rec.record(0, samples=slice(0, 10), x=np.zeros((10, 5), np.int16))
        rec.inputs(y=np.zeros(1000))
        plan = rec.plan()

    assert [(f.path, f.shape, f.nbytes, f.objects, f.every) for f in plan.fields] == [
        ("layers/0/output", (30, 8), 960, 3, 4),
        ("trace/x", (30, 5), 300, 3, 1),
    ]
    assert plan.step_nbytes == 300 + 960 / 4
    assert plan.step_objects == 3 + 3 / 4
    assert plan.run_nbytes == 100 * plan.step_nbytes
    assert plan.rate is not None
    assert plan.waiting == ()


def test_a_plan_is_a_table_to_print(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", samples=2, max_bytes=10**6) as rec:
        rec.declare("shapes", ragged=True)
        rec.record(0, x=np.zeros((2, 3)), shapes=np.zeros((4, 5)))
        lines = str(rec.plan()).splitlines()

    assert lines[0].split("  ")[0] == "field"
    assert lines[1].split() == ["trace/shapes", "ragged", "float64", "1", "0", "B", "1"]
    assert lines[2].split() == ["trace/x", "2", "x", "3", "float64", "1", "48", "B", "1"]
    assert lines[3] == "an average step: 48 B in 2 objects, before compression"
    assert lines[-1] == "memory for what is under way: 1 MB"
