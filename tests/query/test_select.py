"""Any selection of any field gives what NumPy and zarr-python give."""

from __future__ import annotations

import tempfile
import warnings
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.store import open_store
from server.query import Archive
from tests.query.builder import Builder, array_key, spec_of
from tests.query.strategies import RandomField, random_fields, selections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.selection import Selector
    from archive_schema.store import Store
    from server.query import FieldView

_NUMBERS = count()
PATHS = {"layers": "layers/blocks.0/x"}


def build(field: RandomField, store: Store) -> Builder:
    """Write a run that holds *field*."""
    run = Builder(store, steps=field.run_steps, samples=field.samples or None)
    run.declare(field.spec)
    path = PATHS.get(field.spec.place, f"{field.spec.place}/x")
    for (step, tile), values in field.values.items():
        run.put(path, values, step, tile)
    return run


def view_of(archive: Archive, field: RandomField) -> FieldView:
    """Return the field as the archive sees it."""
    return archive.run("run").field("x", layer=field.spec.layer, place=field.spec.place)


def taken_of(selector: Selector, length: int) -> int | list[int]:
    """Return the positions that NumPy would take; an int drops the axis."""
    if isinstance(selector, int):
        return selector
    if isinstance(selector, tuple):
        return list(selector)
    return list(range(length))[selector]


def expected_of(
    field: RandomField, whole: NDArray[Any], chosen: Mapping[str, Selector]
) -> NDArray[Any]:
    """Select from *whole*, of shape (recorded steps, samples, *tail), axis by axis."""
    spec = field.spec
    if not spec.place.stepped:
        whole = whole.reshape(whole.shape[1:])
    dropped = []
    for axis, dim in enumerate(spec.dims[: whole.ndim]):
        selector = chosen.get(dim, slice(None))
        taken = taken_of(selector, whole.shape[axis])
        if dim == "step":
            taken = steps_of(selector, field.steps)
        if isinstance(taken, int):
            dropped.append(axis)
            taken = [taken]
        whole = whole.take(np.array(taken, int), axis=axis)
    return whole.reshape([n for axis, n in enumerate(whole.shape) if axis not in dropped])


def steps_of(selector: Selector, steps: tuple[int, ...]) -> int | list[int]:
    """Return positions in *steps*, which *selector* selects by number."""
    if isinstance(selector, int):
        return selector if selector < 0 else steps.index(selector)
    if isinstance(selector, tuple):
        return [one if one < 0 else steps.index(one) for one in selector]
    wanted = range(steps[-1] + 1)[selector]
    found = [at for at, step in enumerate(steps) if step in wanted]
    return found[::-1] if wanted.step < 0 else found


@settings(max_examples=300, deadline=None)
@given(st.data(), random_fields())
def test_a_selection_gives_what_numpy_gives(data: st.DataObject, field: RandomField) -> None:
    """What is not recorded is refused, or masked; it never passes for a value."""
    run = build(field, open_store(f"memory://select-{next(_NUMBERS)}"))
    path = PATHS.get(field.spec.place, f"{field.spec.place}/x")
    values, mask = run.whole(path, list(field.steps), field.samples)
    chosen = data.draw(selections(field))
    expected = expected_of(field, values, chosen)
    recorded = expected_of(field, mask, chosen)

    view = view_of(Archive(run.store), field)
    masked = view.select(chosen, missing="mask")

    assert masked.shape == expected.shape
    assert masked.nbytes == expected.nbytes
    assert masked.array().dtype == expected.dtype.newbyteorder("<")
    assert masked.array().tobytes() == expected.tobytes()
    assert np.array_equal(masked.recorded(), recorded)
    if recorded.all():
        whole = view.select(chosen)
        assert whole.digest == masked.digest
        assert whole.array().tobytes() == expected.tobytes()
    else:
        with pytest.raises(NotFoundError) as caught:
            view.select(chosen)
        assert caught.value.kind is ErrorKind.NOT_RECORDED


@settings(max_examples=150, deadline=None)
@given(st.data(), random_fields(), st.integers(1, 200))
def test_pieces_are_the_array_in_order(
    data: st.DataObject, field: RandomField, max_bytes: int
) -> None:
    """A slice of any size can be answered with bounded memory and a known length."""
    run = build(field, open_store(f"memory://pieces-{next(_NUMBERS)}"))
    planned = view_of(Archive(run.store), field).select(
        data.draw(selections(field)), missing="mask"
    )

    pieces = list(planned.pieces(max_bytes))

    assert b"".join(piece.tobytes() for piece in pieces) == planned.array().tobytes()
    assert all(piece.nbytes <= max(max_bytes, planned.dtype.itemsize) for piece in pieces)
    assert all(piece.size for piece in pieces)


@settings(max_examples=40, deadline=None)
@given(st.data(), random_fields(whole=True, text=False))
def test_a_selection_gives_what_zarr_gives(data: st.DataObject, field: RandomField) -> None:
    """zarr-python reads the same objects by its own code, from the shard index."""
    with tempfile.TemporaryDirectory() as folder:
        run = build(field, open_store(folder))
        run.zarr(steps=64, samples=field.samples)
        path = PATHS.get(field.spec.place, f"{field.spec.place}/x")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = zarr.open_array(f"{folder}/{array_key(run, path)}", mode="r")
        chosen = data.draw(selections(field))
        view = view_of(Archive(run.store), field)

        values = view.select(chosen).array()

        stored = np.asarray(array[...])
        if field.spec.place.stepped:
            keys = [run.key(path, step).rpartition("/")[2] for step in field.steps]
            stored = stored[[int(key.split(".")[1]) for key in keys]]
        else:
            stored = stored[None]
        if field.spec.encoding.value == "bits":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        expected = expected_of(field, stored.astype(view.dtype), chosen)
        assert values.tobytes() == expected.tobytes()


def ragged_run(store: Store) -> Builder:
    run = Builder(store)
    values = np.arange(6.0)
    run.declare(spec_of("scores", values, ragged=True))
    run.put("trace/scores", values, 0)
    run.put("trace/scores", np.arange(3.0), 4)
    return run.put("trace/scores", np.empty(0), 5).put("trace/scores", -values, 7)


def test_a_ragged_field_is_read_at_one_step_or_at_steps_of_one_shape(
    store: Store, archive: Archive
) -> None:
    """BATCHIE records another number of plates in each iteration."""
    ragged_run(store)
    view = archive.run("run").field("scores")

    assert view.shape == (4, None)
    assert view.select({"step": 4}).array().tolist() == [0, 1, 2]
    assert view.select({"step": 4, "axis0": slice(None, None, -2)}).array().tolist() == [2, 0]
    assert view.select({"step": 5}).array().shape == (0,)
    assert view.select({"step": (0, 7), "axis0": 5}).array().tolist() == [5, -5]
    with pytest.raises(
        InvalidInputError, match=r"another shape at each step, from \(0,\)"
    ) as caught:
        view.select({})
    assert caught.value.kind is ErrorKind.INVALID_SELECTION
    with pytest.raises(InvalidInputError, match="axis0 5 is outside the axis, which has length 3"):
        view.select({"step": 4, "axis0": 5})


def test_values_without_axes_are_read(store: Store, archive: Archive) -> None:
    """A loss at each step, and one number for the run."""
    run = Builder(store)
    run.declare(
        spec_of("loss", np.array(0, np.float32)), spec_of("n", np.array(0), place=Place.INPUTS)
    )
    run.put("trace/loss", np.array(0.5, np.float32), 3).put(
        "trace/loss", np.array(0.25, np.float32), 9
    )
    run.put("inputs/n", np.array(7))
    view = archive.run("run")

    assert view.field("loss").select({}).array().tolist() == [0.5, 0.25]
    assert view.field("loss").select({"step": -1}).array().shape == ()
    assert view.field("n", place=Place.INPUTS).select({}).array() == 7
    with pytest.raises(InvalidInputError, match="no dimension 'sample'; expected none"):
        view.field("n", place=Place.INPUTS).select({"sample": 0})


def test_what_can_be_refused_is_refused_before_a_read(store: Store, archive: Archive) -> None:
    """A limit, a status and headers must be known while an answer can still be changed."""
    run = Builder(store, samples=10)
    run.declare(spec_of("x", np.zeros((4, 2)), tile=4))
    run.put("trace/x", np.ones((4, 2)), 2).put("trace/x", np.ones((2, 2)), 2, 2)
    run.put("trace/x", np.ones((4, 2)), 5, 1)
    view = archive.run("run").field("x")
    store.delete(run.key("trace/x", 2))

    planned = view.select({"step": 2, "sample": slice(0, 4)})

    assert (planned.dims, planned.shape, planned.steps) == (("sample", "axis0"), (4, 2), (2,))
    assert planned.nbytes == 64
    assert 0 < planned.read_nbytes < 200
    refused: list[tuple[dict[str, Selector], ErrorKind, str]] = [
        (
            {"step": 3},
            ErrorKind.STEP_NOT_RECORDED,
            "'trace/x' of run 'run': step 3 is not recorded",
        ),
        ({"plate": 3}, ErrorKind.UNKNOWN_PARAMETER, "no dimension 'plate'; expected step, sample"),
        ({"step": 2, "sample": 10}, ErrorKind.SELECTION_OUT_OF_BOUNDS, "which has length 10"),
        (
            {"step": 2, "sample": (1, 5)},
            ErrorKind.NOT_RECORDED,
            "samples 5 are not recorded at step 2",
        ),
        (
            {},
            ErrorKind.NOT_RECORDED,
            "samples 4:8 are not recorded at step 2; recorded there: samples 0:4,8:10",
        ),
    ]
    for chosen, kind, message in refused:
        with pytest.raises((InvalidInputError, NotFoundError), match=message) as caught:
            view.select(chosen)
        assert caught.value.kind is kind


def test_a_slice_knows_where_its_values_lie(store: Store, archive: Archive) -> None:
    """Tables and xarray objects carry positions, and step numbers for the step axis."""
    run = Builder(store)
    run.declare(spec_of("x", np.zeros((3, 4)), tile=3))
    for step in (0, 10, 20):
        run.put("trace/x", np.ones((3, 4)), step)

    planned = (
        archive.run("run")
        .field("x")
        .select({"step": slice(5, None), "sample": 1, "axis0": slice(None, None, -2)})
    )

    found = {dim: at.tolist() for dim, at in planned.coordinates().items()}
    assert found == {"step": [10, 20], "axis0": [3, 1]}
    assert planned.steps == (10, 20)


def test_a_digest_changes_with_all_that_the_values_follow_from(store: Store) -> None:
    """It is the ETag: equal for equal bytes, and another for anything else."""
    digests: list[str] = []
    for uid, factor, dtype in (("a", 1, "f4"), ("b", 1, "f4"), ("a", 2, "f4"), ("a", 1, "f8")):
        run = Builder(store, f"run{len(digests)}", uid=uid)
        values = factor * np.arange(8, dtype=dtype).reshape(4, 2)
        run.declare(spec_of("x", values, tile=4)).put("trace/x", values, 0).put(
            "trace/x", values, 1
        )
        view = Archive(store).run(run.manifest.id).field("x")
        digests.append(view.select({"step": 0}).digest)
    digests += [
        view.select({"step": 1}).digest,
        view.select({"step": slice(0, 1)}).digest,
        view.select({"step": 0, "sample": slice(0, 3)}).digest,
        view.select({"step": 0, "axis0": slice(0, 1)}).digest,
        view.select({"step": 0, "axis0": 0}).digest,
    ]

    assert len(set(digests)) == len(digests)
    assert view.select({"step": -2}).digest == view.select({"step": 0}).digest
