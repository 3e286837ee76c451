"""Overviews for eyes: parts and their means, integers for bytes, statistics as a table."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, OFFSET_HEADER, SCALE_HEADER, SHAPE_HEADER
from server.query import part_edges
from tests.query.builder import Builder, spec_of
from tests.server.test_problems import is_problem
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

STEPS: Final = 3
SAMPLES: Final = 4
HEADS: Final = 2
SIDE: Final = 21
BLOCKS: Final = tuple(f"blocks.{n}" for n in range(12))
RNG: Final = np.random.default_rng(5)
ATTENTION: Final = RNG.random((len(BLOCKS), STEPS, HEADS, SIDE, SIDE)).astype(np.float16)
PROB: Final = RNG.random((STEPS, SAMPLES, 6, 4)).astype(np.float32)
ODD: Final = np.where(RNG.random((STEPS, SAMPLES, 5)) < 0.3, np.nan, RNG.normal(size=(3, 4, 5)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Give a client of a service with a small limit on answers."""
    store = open_store(tmp_path_factory.mktemp("overview"))
    run = Builder(store, "run", uid="u", steps=STEPS, samples=SAMPLES)
    run.declare(
        spec_of("prob", PROB[0], tile=2),
        spec_of("odd", ODD[0], tile=4),
        spec_of("name", np.full((SAMPLES, 2), "abc"), tile=4),
        *(spec_of("map", ATTENTION[0, 0], place=Place.LAYERS, layer=b) for b in BLOCKS),
        spec_of("map", PROB[0], place=Place.LAYERS, layer="pool", tile=2),
    ).zarr(steps=STEPS, samples=SAMPLES)
    for step in range(STEPS):
        run.put_step("trace/prob", PROB[step], step).put_step("trace/odd", ODD[step], step)
        run.put_step("trace/name", np.full((SAMPLES, 2), "abc"), step)
        run.put_step("layers/pool/map", PROB[step], step)
        for at, block in enumerate(BLOCKS):
            run.commit(run.columns(f"layers/{block}/map", step, 0, ATTENTION[at, step]))
    run.seal()
    with served(store.url, max_answer_bytes=16 << 10) as url:
        with httpx.Client(base_url=url) as client:
            yield client


def array_of(answer: httpx.Response) -> NDArray[Any]:
    assert answer.status_code == 200, answer.text
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


def meant(answer: httpx.Response) -> NDArray[np.float64]:
    """Turn integers back into what they stand for."""
    integers = array_of(answer)
    scale, offset = (float(answer.headers[name]) for name in (SCALE_HEADER, OFFSET_HEADER))
    values = offset + scale * integers.astype(np.float64)
    values[integers == np.iinfo(integers.dtype).max] = np.nan
    return values


def means(values: NDArray[Any], axis: int, most: int) -> NDArray[np.float64]:
    edges = part_edges(values.shape[axis], most)
    sums = np.add.reduceat(values.astype(np.float64), edges[:-1], axis)
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.asarray(sums / np.diff(edges).reshape(shape))


def test_all_heads_of_all_layers_are_one_small_answer(runs: httpx.Client) -> None:
    """The whole is above the limit of an answer here; its thumbs are a fraction of it."""
    path = "/runs/run/steps/1/layers/blocks.*/map"
    is_problem(runs.get(f"{path}?format=npy"), 413, "answer-too-large")

    answer = runs.get(f"{path}?downsample=7&quant=u8&format=npy")

    expected = means(means(ATTENTION[:, 1], 3, 7), 2, 7).transpose(0, 1, 2, 3)
    assert answer.headers[DIMS_HEADER] == "layer,axis0,axis1,axis2"
    assert answer.headers[SHAPE_HEADER] == "12,2,7,7"
    assert answer.headers[DTYPE_HEADER] == "uint8"
    assert len(answer.content) == 128 + 12 * 2 * 7 * 7
    np.testing.assert_allclose(meant(answer), expected, atol=0.5 / 254)
    again = runs.get(
        f"{path}?downsample=7&quant=u8&format=npy",
        headers={"If-None-Match": answer.headers["etag"]},
    )
    assert again.status_code == 304
    assert "immutable" in answer.headers["cache-control"]


def test_axes_are_named_and_parts_are_called_as_their_first_entry(runs: httpx.Client) -> None:
    path = "/runs/run/fields/prob?downsample=steps:2,axis0:4"

    answer = runs.get(f"{path}&format=npy")
    table = pa.ipc.open_stream(runs.get(f"{path}&format=arrow").content).read_all()

    np.testing.assert_allclose(array_of(answer), means(means(PROB, 2, 4), 0, 2))
    assert sorted(set(table["step"].to_pylist())) == [0, 1]
    assert sorted(set(table["axis0"].to_pylist())) == [0, 1, 3, 4]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["u8", "u16"]), st.integers(0, 2), st.integers(0, 5))
def test_integers_stand_for_what_was_recorded(
    runs: httpx.Client, kind: str, step: int, stop: int
) -> None:
    answer = runs.get(f"/runs/run/steps/{step}/odd?axis0=:{stop}&quant={kind}&format=npy")

    expected = ODD[step, :, :stop]
    found = meant(answer)
    finite = expected[np.isfinite(expected)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    most = 254 if kind == "u8" else 65534
    np.testing.assert_allclose(found, expected, rtol=0, atol=spread / most * 0.501)


def test_a_reduction_is_reduced_downsampled_and_quantised(runs: httpx.Client) -> None:
    """Entropy by position, then its mean by step and sample: the strip of a run's summary."""
    path = "/runs/run/fields/prob?reduce=entropy&over=axis1&then=mean&keep=step,sample"

    strip = array_of(runs.get(f"{path}&format=npy"))
    parts = array_of(runs.get(f"{path}&downsample=sample:2&format=npy"))
    small = runs.get(f"{path}&quant=u16&format=npy")

    share = PROB / PROB.sum(axis=3, keepdims=True, dtype=np.float64)
    expected = -(share * np.log(share)).sum(axis=3).mean(axis=2)
    np.testing.assert_allclose(strip, expected)
    np.testing.assert_allclose(parts, means(expected, 1, 2))
    np.testing.assert_allclose(meant(small), expected, atol=1e-5)


def test_what_is_kept_is_what_is_not_reduced(runs: httpx.Client) -> None:
    kept = runs.get("/runs/run/fields/prob?reduce=max&keep=samples&format=npy")
    over = runs.get("/runs/run/fields/prob?reduce=max&over=step,axis0,axis1&format=npy")
    layers = runs.get("/runs/run/steps/0/layers/blocks.*/map?reduce=l2&keep=layer,axis0&format=npy")

    np.testing.assert_array_equal(array_of(kept), PROB.max(axis=(0, 2, 3)))
    assert kept.content == over.content
    wide = ATTENTION[:, 0].astype(np.float64)
    np.testing.assert_allclose(array_of(layers), np.sqrt((wide**2).sum(axis=(2, 3))))


@pytest.mark.parametrize("format_", ["json", "csv", "npz", "arrow"])
def test_statistics_are_a_row_for_each_layer(runs: httpx.Client, format_: str) -> None:
    """Layers need not be alike, and those of a step may be told apart."""
    path = "/runs/run/layers/*/map?steps=0,2&reduce=stats&keep=step"

    answer = runs.get(f"{path}&format={format_}")

    assert answer.status_code == 200, answer.text
    stream = io.BytesIO(answer.content)
    columns: dict[str, Any]
    if format_ == "json":
        columns = answer.json()["coordinates"]
    elif format_ == "npz":
        with np.load(stream) as file:
            columns = dict(file)
    elif format_ == "csv":
        header, *rows = answer.text.splitlines()
        names = header.replace('"', "").split(",")
        cells = zip(*(row.replace('"', "").split(",") for row in rows), strict=True)
        columns = dict(zip(names, cells, strict=True))
    else:
        columns = pa.ipc.open_stream(stream).read_all().to_pydict()
    assert list(columns["layer"]) == [one for one in (*BLOCKS, "pool") for _ in range(2)]
    assert [int(step) for step in columns["step"]] == [0, 2] * 13
    wide = [*ATTENTION[:, [0, 2]].astype(np.float64).reshape(24, -1), *PROB[[0, 2]].reshape(2, -1)]
    for name, expected in {
        "mean": [one.mean(dtype=np.float64) for one in wide],
        "max": [one.max() for one in wide],
        "count": [one.size for one in wide],
    }.items():
        np.testing.assert_allclose(np.array(columns[name], np.float64), expected)
    bins = np.array([columns[f"histogram_{at}"] for at in range(16)], np.float64)
    np.testing.assert_array_equal(bins.sum(axis=0), [one.size for one in wide])


def test_statistics_say_what_is_not_finite(runs: httpx.Client) -> None:
    columns = runs.get("/runs/run/steps/1/odd?reduce=stats").json()["coordinates"]

    assert columns["nonfinite"] == [int(np.isnan(ODD[1]).sum())]
    np.testing.assert_allclose(columns["mean"], np.nanmean(ODD[1]))
    np.testing.assert_allclose(columns["std"], np.nanstd(ODD[1]))


BAD = [
    ("downsample=0", 422, "invalid-parameter"),
    ("downsample=many", 422, "invalid-parameter"),
    ("downsample=head:3", 422, "invalid-parameter"),
    ("downsample=axis0:", 422, "invalid-parameter"),
    ("downsample=axis0:2,axis0:3", 422, "invalid-parameter"),
    ("axis0=1&downsample=axis0:2", 422, "unknown-parameter"),
    ("quant=u4", 422, "invalid-parameter"),
    ("quant=u8&missing=mask", 422, "invalid-parameter"),
    ("quant=u8&top=3", 422, "invalid-parameter"),
    ("downsample=3&threshold=1", 422, "invalid-parameter"),
    ("keep=step", 422, "invalid-parameter"),
    ("then=mean", 422, "invalid-parameter"),
    ("reduce=mean&keep=head", 422, "invalid-parameter"),
    ("reduce=mean&keep=step,step", 422, "invalid-parameter"),
    ("reduce=mean&keep=step,sample,axis0,axis1", 422, "invalid-parameter"),
    ("reduce=mean&step=0&keep=step", 422, "unknown-parameter"),
    ("reduce=mean&over=step&keep=sample", 422, "invalid-parameter"),
    ("reduce=mean&then=max&keep=sample", 422, "invalid-parameter"),
    ("reduce=mean&over=step&then=middle", 422, "invalid-parameter"),
    ("reduce=mean&over=step&then=max&keep=step", 422, "invalid-parameter"),
    ("reduce=mean&over=step&then=max&keep=sample,axis0,axis1", 422, "invalid-parameter"),
    ("reduce=stats&quant=u8", 422, "invalid-parameter"),
    ("reduce=stats&downsample=3", 422, "invalid-parameter"),
    ("reduce=stats&over=step&then=mean", 422, "invalid-parameter"),
    ("reduce=stats&step=0&keep=step", 422, "unknown-parameter"),
    ("reduce=stats&format=npy", 406, "format-not-acceptable"),
]


@pytest.mark.parametrize(("query", "status", "kind"), BAD)
def test_what_makes_no_sense_is_refused(
    runs: httpx.Client, query: str, status: int, kind: str
) -> None:
    is_problem(runs.get(f"/runs/run/fields/prob?{query}"), status, kind)


def test_text_and_layers_that_differ_have_no_overview(runs: httpx.Client) -> None:
    for query in ("downsample=1", "quant=u8", "reduce=stats"):
        answer = runs.get(f"/runs/run/fields/name?{query}")
        is_problem(answer, 422, "invalid-parameter")
    path = "/runs/run/steps/0/layers/*/map"
    is_problem(runs.get(f"{path}?downsample=3"), 422, "invalid-selection")
    is_problem(runs.get(f"{path}?quant=u8"), 422, "invalid-selection")


def test_what_a_reduction_leaves_has_the_limit_of_an_answer(runs: httpx.Client) -> None:
    """It is held in memory: to reduce nothing but a short axis must not get around the limit."""
    path = "/runs/run/steps/0/layers/blocks.*/map"

    for query in ("reduce=mean&over=axis0", "reduce=mean&over=axis0&then=max", "downsample=20"):
        is_problem(runs.get(f"{path}?{query}&format=npy"), 413, "answer-too-large")
