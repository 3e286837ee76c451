"""Steps and samples by their coordinates, layers by glob: what NumPy takes from the tables."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import h5py
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.models import Place, SampleColumn, StepColumn, TileColumns
from archive_schema.store import open_store
from archive_schema.wire import DIMS_HEADER, LAYERS_HEADER, SHAPE_HEADER, STEPS_HEADER
from tests.query.builder import Builder, spec_of
from tests.server.test_problems import is_problem
from tests.server_fixture import serve, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archive_schema.store import Store
    from tests.server_fixture import Serve

__all__ = ["serve"]

STEPS: Final = 8
SAMPLES: Final = 6
RECYCLE: Final = np.arange(STEPS) // 3
TIMESTEP: Final = np.array([1.0, 0.875, 0.75, 0.5, 0.5, 0.25, 0.125, np.nan])
NAMES: Final = np.array(["K562", "tench, Tinca tinca", "K562", "HepG2", "a:b", "HepG2"])
PLATE: Final = np.array([2**53, 2**53 + 1, 0, 0, 1, 1])
DOWNS: Final = ("downs.0", "downs.2", "downs.10")
RNG: Final = np.random.default_rng(3)
SCORE: Final = RNG.normal(size=(STEPS, SAMPLES, 4)).astype(np.float32)
DOWN: Final = RNG.normal(size=(len(DOWNS), STEPS, SAMPLES, 3, 3)).astype(np.float16)
START: Final = RNG.integers(0, 9, (SAMPLES, 2))


def write(run: Builder) -> Builder:
    """Write steps and samples with coordinates, layers alike and one that is not."""
    run.declare(
        spec_of("score", SCORE[0], tile=3),
        spec_of("every", SCORE[0], tile=6, every=3),
        spec_of("start", START, place=Place.INPUTS, tile=6),
        *(spec_of("out", DOWN[0, 0], place=Place.LAYERS, layer=d, tile=6) for d in DOWNS),
        spec_of("out", DOWN[0, 0, :, :2], place=Place.LAYERS, layer="mid", tile=6),
        spec_of("weights", DOWN[0, 0], place=Place.LAYERS, layer="mid", tile=6),
    ).zarr(steps=STEPS, samples=SAMPLES)
    run.put_step("inputs/start", START)
    for step in range(STEPS):
        run.put_step("trace/score", SCORE[step], step)
        if step % 3 == 0:
            run.put_step("trace/every", SCORE[step], step)
        for at, layer in enumerate(DOWNS):
            run.put_step(f"layers/{layer}/out", DOWN[at, step], step)
        run.put_step("layers/mid/out", DOWN[0, step, :, :2], step)
        run.put_step("layers/mid/weights", DOWN[0, step], step)
    of_steps: dict[str, tuple[str, list[Any]]] = {
        "recycle": ("int64", RECYCLE.tolist()),
        "timestep": ("float64", ["NaN" if t != t else t for t in TIMESTEP.tolist()]),  # noqa: PLR0124
        "axis0": ("int64", (RECYCLE + 5).tolist()),
        "both": ("int64", RECYCLE.tolist()),
    }
    of_samples: dict[str, tuple[str, list[Any]]] = {
        "class": ("str", NAMES.tolist()),
        "plate": ("int64", PLATE.tolist()),
        "both": ("int64", list(range(SAMPLES))),
    }
    every = tuple(range(STEPS))
    return run.commit(
        coordinates=tuple(
            StepColumn(name=name, dtype=dtype, step=every, value=tuple(values))
            for name, (dtype, values) in of_steps.items()
        ),
        samples=tuple(
            SampleColumn(name=name, dtype=dtype, start=0, value=tuple(values))
            for name, (dtype, values) in of_samples.items()
        ),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Give a client of a service with small limits, over a sealed run and one that grows."""
    store = open_store(tmp_path_factory.mktemp("coordinates"))
    write(Builder(store, "sealed", uid="u1", steps=STEPS, samples=SAMPLES)).seal()
    write(Builder(store, "live", uid="u2", samples=SAMPLES))
    limit = DOWN.nbytes
    with served(store.url, max_answer_bytes=limit, max_reduced_bytes=2 * limit) as url:
        with httpx.Client(base_url=url) as client:
            yield client


def array_of(answer: httpx.Response) -> NDArray[Any]:
    assert answer.status_code == 200, answer.text
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


conditions = st.fixed_dictionaries(
    {},
    optional={
        "recycle": st.sampled_from(["0", "2", "0,2", "1:", ":2", "0:1"]),
        "timestep": st.sampled_from(["0.5", "0.3", "0.99,0.1", "0.125:0.75", "7"]),
        "class": st.sampled_from(["K562", "tench, Tinca tinca", "HepG2,a:b", "a:b"]),
        "sample.plate": st.sampled_from([str(2**53 + 1), "0,1", "0:2"]),
        "samples": st.sampled_from(["::-1", "1:5"]),
        "steps": st.sampled_from(["::2", "3:"]),
    },
)


def rows(asked: dict[str, str], axis: str) -> list[int]:
    """Return the steps or samples that NumPy finds, in the order of the selector beside.

    None of them if a value of a list is nowhere among those that the selector takes.
    """
    columns: dict[str, NDArray[Any]] = (
        {"recycle": RECYCLE} if axis == "step" else {"class": NAMES, "sample.plate": PLATE}
    )
    length = STEPS if axis == "step" else SAMPLES
    ends = asked.get(f"{axis}s", ":").split(":")
    among = np.arange(length)[slice(*(int(end) if end else None for end in ends))]
    there = np.ones(len(among), bool)
    for name, column in columns.items():
        text, values = asked.get(name), column[among]
        if text is None:
            continue
        if ":" in text and name != "class":
            low, high = (int(end) if end else None for end in text.split(":"))
            there &= values >= (values.min() if low is None else low)
            there &= values < (values.max() + 1 if high is None else high)
            continue
        whole = name == "class" and text in values
        items = [text] if whole or ", " in text else text.split(",")
        wanted = [type(column[0].item())(item) for item in items]
        if not np.isin(wanted, values).all():
            return []
        there &= np.isin(values, wanted)
    left = among[there]
    text = asked.get("timestep") if axis == "step" else None
    if text is None:
        return list(map(int, left))
    times = TIMESTEP[left]
    if ":" in text:
        start, stop = map(float, text.split(":"))
        return list(map(int, left[(times >= start) & (times < stop)]))
    known = times[~np.isnan(times)]
    nearest = {
        float(known[np.abs(known - one) == np.abs(known - one).min()].min())
        for one in map(float, text.split(","))
        if len(known)
    }
    return list(map(int, left[np.isin(times, list(nearest))]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=conditions, run=st.sampled_from(["sealed", "live"]))
def test_slices_by_coordinates_are_what_numpy_takes(
    runs: httpx.Client, asked: dict[str, str], run: str
) -> None:
    steps, samples = rows(asked, "step"), rows(asked, "sample")

    answer = runs.get(f"/runs/{run}/fields/score", params={**asked, "format": "npy"})

    if not steps or not samples:
        is_problem(answer, 404, "nothing-matches")
        return
    np.testing.assert_array_equal(array_of(answer), SCORE[np.ix_(steps, samples)])
    assert answer.headers[DIMS_HEADER] == "step,sample,axis0"


def test_one_that_matches_keeps_its_axis_and_the_tag_follows_from_what_was_taken(
    runs: httpx.Client,
) -> None:
    by_name = runs.get("/runs/sealed/fields/score?timestep=0.74&class=a:b&format=raw")
    by_number = runs.get("/runs/sealed/fields/score?steps=2:3&samples=4:5&format=raw")

    assert by_name.headers[SHAPE_HEADER] == "1,1,4"
    assert by_name.headers[STEPS_HEADER] == "2"
    assert by_name.content == by_number.content
    assert by_name.headers["etag"] == by_number.headers["etag"]
    assert "immutable" in by_name.headers["cache-control"]
    again = runs.get(
        by_name.url.raw_path.decode(), headers={"If-None-Match": by_name.headers["etag"]}
    )
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("query", "steps", "samples"),
    [
        ("timestep=0.5", [3, 4], None),
        ("timestep=0.6", [3, 4], None),
        ("timestep=0.6&recycle=2", [6], None),
        ("step.recycle=1&axis0=0", [3, 4, 5], None),
        ("step.axis0=6", [3, 4, 5], None),
        ("step.both=2&sample.both=0,3", [6, 7], [0, 3]),
        ("class=tench, Tinca tinca,K562", None, [0, 1, 2]),
        (f"plate={2**53}", None, [0]),
        ("samples=0:3&class=K562", None, [0, 2]),
    ],
)
def test_what_a_coordinate_means(
    runs: httpx.Client, query: str, steps: list[int] | None, samples: list[int] | None
) -> None:
    found = array_of(runs.get(f"/runs/sealed/fields/score?{query}&format=npy"))

    expected = SCORE[range(STEPS) if steps is None else steps]
    expected = expected[:, range(SAMPLES) if samples is None else samples]
    if "axis0=0" in query:  # the dimension wins over the coordinate
        expected = expected[..., 0]
    np.testing.assert_array_equal(found, expected)


def test_the_nearest_is_that_at_which_the_field_is_recorded(runs: httpx.Client) -> None:
    """The field is recorded at steps 0, 3 and 6, of which 1.0, 0.5 and 0.125."""
    answer = runs.get("/runs/sealed/fields/every?timestep=0.26&format=npy")

    np.testing.assert_array_equal(array_of(answer), SCORE[[6]])


@pytest.mark.parametrize(
    "path",
    [
        "/runs/sealed/steps/3/score?class=K562",
        "/runs/sealed/inputs/start?class=K562",
        "/runs/sealed/steps/3/layers/downs.2/out?class=K562",
        "/runs/sealed/steps/3/layers/downs.*/out?class=K562",
    ],
)
def test_samples_are_chosen_where_the_path_names_the_step(runs: httpx.Client, path: str) -> None:
    sources: dict[str, NDArray[Any]] = {
        "score": SCORE[3], "start": START, "downs.2": DOWN[1, 3], "downs.*": DOWN[:, 3],
    }  # fmt: skip
    whole = next(array for name, array in sources.items() if f"/{name}" in path)
    axis = 1 if "*" in path else 0

    np.testing.assert_array_equal(
        array_of(runs.get(f"{path}&format=npy")), np.take(whole, [0, 2], axis)
    )


def test_tables_are_cut_by_coordinates(runs: httpx.Client) -> None:
    steps = runs.get("/runs/sealed/steps?recycle=1&timestep=0.5").json()
    samples = runs.get("/runs/sealed/samples?class=HepG2&format=csv").text

    assert steps["index"] == [3, 4]
    assert steps["coordinates"]["recycle"] == [1, 1]
    assert [line.split(",")[0] for line in samples.splitlines()[1:]] == ["3", "5"]


def test_a_query_takes_coordinates_and_globs(runs: httpx.Client) -> None:
    body: dict[str, list[dict[str, Any]]] = {
        "slices": [
            {"field": "score", "select": {"recycle": "2", "class": "HepG2"}},
            {"field": "out", "layer": "downs.*", "select": {"step": "3", "class": "a:b"}},
            {"field": "out", "layer": "mid*", "name": "m", "select": {"step": "3"}},
        ]
    }

    answer = runs.post("/runs/sealed/query", json=body)

    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as file:
        names = [name for name in file if not name.endswith((".step", ".sample"))]
        assert names == ["score", *(f"{d}.out" for d in DOWNS), "m.mid"]
        np.testing.assert_array_equal(file["score"], SCORE[np.ix_([6, 7], [3, 5])])
        np.testing.assert_array_equal(file["downs.10.out"], DOWN[2, 3, 4:5])
    body["slices"][0]["select"] = {"recycle": "9"}
    is_problem(runs.post("/runs/sealed/query", json=body), 404, "nothing-matches")


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_a_file_is_cut_by_coordinates_and_globs(runs: httpx.Client, ending: str) -> None:
    query = "recycle=1&class=K562,HepG2&layers=downs.?,mid&fields=out"

    answer = runs.get(f"/runs/sealed.{ending}?{query}")

    assert answer.status_code == 200, answer.text
    if ending == "npz":
        with np.load(io.BytesIO(answer.content)) as file:
            held = {name: file[name] for name in file if name.endswith("/out")}
        assert set(held) == {f"layers/{layer}/out" for layer in ("downs.0", "downs.2", "mid")}
        expected = DOWN[1][np.ix_([3, 4, 5], [0, 2, 3, 5])]
        np.testing.assert_array_equal(held["layers/downs.2/out"], expected)
    else:
        with h5py.File(io.BytesIO(answer.content)) as file:
            named: list[str] = []
            file.visit(named.append)
        assert any("downs.2" in name for name in named)
        assert not any("downs.10" in name for name in named)
    whole = runs.head(f"/runs/sealed.{ending}").headers["etag"]
    assert answer.headers["etag"] != whole


def test_layers_are_listed_by_glob_as_people_count(runs: httpx.Client) -> None:
    def names(query: str) -> list[str]:
        answer = runs.get(f"/runs/sealed/layers{query}").json()
        return [layer["name"] for layer in answer["layers"]]

    assert names("?layer=d*") == list(DOWNS)
    assert names("?layer=downs.[02]") == ["downs.0", "downs.2"]
    assert names("?layer=mid") == ["mid"]
    assert set(names("")) == {*DOWNS, "mid"}
    is_problem(runs.get("/runs/sealed/layers?layer=up*"), 404, "layer-not-found")


@pytest.mark.parametrize("format_", ["npy", "raw", "json", "npz", "csv", "arrow"])
def test_layers_that_are_alike_are_one_array(runs: httpx.Client, format_: str) -> None:
    answer = runs.get(
        f"/runs/sealed/layers/downs.*/out?recycle=1&samples=4:&axis1=1&format={format_}"
    )
    expected = DOWN[:, 3:6, 4:, :, 1]

    assert answer.status_code == 200, answer.text
    assert answer.headers[DIMS_HEADER] == "layer,step,sample,axis0"
    assert answer.headers[LAYERS_HEADER] == ",".join(DOWNS)
    stream = io.BytesIO(answer.content)
    if format_ == "raw":
        found = np.frombuffer(answer.content, "<f2").reshape(expected.shape)
    elif format_ == "npy":
        found = np.load(stream)
    elif format_ == "npz":
        with np.load(stream) as file:
            found, layers = file["out"], file["layer"].tolist()
            assert file["step"].tolist() == [3, 4, 5]
        assert layers == list(DOWNS)
    elif format_ == "json":
        document = json.loads(answer.content)
        assert document["layers"] == list(DOWNS)
        found = np.array(document["data"], np.float16)
    else:
        table = (
            pa_csv.read_csv(stream) if format_ == "csv" else pa.ipc.open_stream(stream).read_all()
        )
        assert table["layer"].to_pylist() == np.repeat(DOWNS, expected[0].size).tolist()
        assert table["step"].to_pylist()[:6] == [3] * 6
        found = np.array(table["value"].to_pylist(), np.float16).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_layers_that_differ_come_one_by_one_as_npz_only(runs: httpx.Client) -> None:
    path = "/runs/sealed/layers/*/out?step=3&samples=0:2"

    answer = runs.get(f"{path}&format=npz")

    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as file:
        np.testing.assert_array_equal(file["downs.10"], DOWN[2, 3, :2])
        np.testing.assert_array_equal(file["mid"], DOWN[0, 3, :2, :2])
    for format_ in ("npy", "json", "csv"):
        problem = is_problem(runs.get(f"{path}&format={format_}"), 422, "invalid-selection")
        assert "axis0 3" in problem["detail"]
        assert "axis0 2" in problem["detail"]
        assert "format=npz" in problem["detail"]
    is_problem(runs.get(f"{path}&top=3"), 422, "invalid-selection")
    alone = runs.get("/runs/sealed/layers/*/weights?step=3&format=npy")
    assert array_of(alone).shape == (1, SAMPLES, 3, 3), "only those that have the field"


def test_reductions_of_several_layers(runs: httpx.Client) -> None:
    every = "/runs/sealed/layers/*/out?step=3&reduce=max&over=axis0,axis1"
    means = runs.get("/runs/sealed/layers/downs.*/out?recycle=0&reduce=mean&over=layer&format=npy")
    total = runs.get("/runs/sealed/layers/downs.*/out?step=1&reduce=sum&format=npy")
    maxima = runs.get(f"{every}&format=json").json()

    wide = DOWN.astype(np.float64)
    np.testing.assert_allclose(array_of(means), wide[:, :3].mean(axis=0))
    np.testing.assert_allclose(array_of(total), wide[:, 1].sum())
    assert maxima["layers"] == [*DOWNS, "mid"], "what differs was reduced"
    expected = [*(d[3].max(axis=(1, 2)) for d in DOWN), DOWN[0, 3, :, :2].max(axis=(1, 2))]
    np.testing.assert_array_equal(np.array(maxima["data"], np.float16), np.stack(expected))
    apart = runs.get("/runs/sealed/layers/*/out?step=3&reduce=max&over=axis1&format=npz")
    with np.load(io.BytesIO(apart.content)) as file:
        np.testing.assert_array_equal(file["mid"], DOWN[0, 3, :, :2].max(axis=2))


@pytest.mark.parametrize("format_", ["json", "npz", "csv", "arrow"])
def test_the_largest_of_several_layers_and_samples(runs: httpx.Client, format_: str) -> None:
    answer = runs.get(
        f"/runs/sealed/layers/downs.*/out?step=3&class=K562&top=7&threshold=-9&format={format_}"
    )

    whole = DOWN[:, 3][:, [0, 2]]
    order = np.argsort(-whole.reshape(-1), kind="stable")[:7]
    at = np.unravel_index(order, whole.shape)
    wanted: dict[str, list[Any]] = {
        "layer": [DOWNS[one] for one in at[0]],
        "sample": [[0, 2][one] for one in at[1]],
        "row": at[2].tolist(),
        "column": at[3].tolist(),
        "value": whole.reshape(-1)[order].tolist(),
    }
    stream = io.BytesIO(answer.content)
    if format_ == "json":
        document = answer.json()
        found = {**document["places"], **{n: document[f"{n}s"] for n in ("row", "column", "value")}}
    elif format_ == "npz":
        with np.load(stream) as file:
            found = {name.removesuffix("s"): file[name].tolist() for name in file}
    else:
        table = (
            pa_csv.read_csv(stream) if format_ == "csv" else pa.ipc.open_stream(stream).read_all()
        )
        found = table.to_pydict()
    values = np.array(found.pop("value"), np.float16).tolist()
    assert values == wanted.pop("value")
    assert found == wanted


BAD: Final = [
    ("recycle=x", 422, "invalid-selection"),
    ("recycle=1.5", 422, "invalid-selection"),
    ("recycle=0:1:2", 422, "invalid-selection"),
    ("timestep=nan", 422, "invalid-selection"),
    ("timestep=", 422, "invalid-selection"),
    ("both=1", 422, "invalid-parameter"),
    ("step=3&recycle=1", 422, "invalid-parameter"),
    ("sample=3&class=K562", 422, "invalid-parameter"),
    ("step.class=K562", 422, "unknown-parameter"),
    ("step.=1", 422, "unknown-parameter"),
    ("layer.x=1", 422, "unknown-parameter"),
    ("recyle=1", 422, "unknown-parameter"),
    ("recycle=9", 404, "nothing-matches"),
    ("recycle=0,9", 404, "nothing-matches"),
    ("recycle=0&timestep=0:0.5", 404, "nothing-matches"),
    ("class=", 404, "nothing-matches"),
    ("class=k562", 404, "nothing-matches"),
    ("recycle=1&recycle=2", 422, "invalid-parameter"),
]


@pytest.mark.parametrize(("query", "status", "kind"), BAD)
@pytest.mark.parametrize(
    "path", ["fields/score", "layers/downs.2/out", "layers/downs.*/out", ".h5", "export"]
)
def test_bad_coordinates_are_told(
    runs: httpx.Client, path: str, query: str, status: int, kind: str
) -> None:
    joint = "" if path.startswith(".") else "/"
    more = "&format=npz" if path == "export" else ""

    problem = is_problem(runs.get(f"/runs/sealed{joint}{path}?{query}{more}"), status, kind)

    if kind == "nothing-matches":
        assert "values of" in problem["detail"]
    if kind == "unknown-parameter":
        assert "recycle" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/runs/sealed/steps?recycle=9", 404, "nothing-matches"),
        ("/runs/sealed/steps?steps=1&recycle=0", 422, "invalid-parameter"),
        ("/runs/sealed/steps?class=K562", 422, "unknown-parameter"),
        ("/runs/sealed/samples?class=x", 404, "nothing-matches"),
        ("/runs/sealed/samples?recycle=1", 422, "unknown-parameter"),
        ("/runs/sealed/steps/3?recycle=1", 422, "unknown-parameter"),
        ("/runs/sealed/steps/3/score?recycle=1", 422, "unknown-parameter"),
        ("/runs/sealed/steps/3/score?step=3", 422, "unknown-parameter"),
        ("/runs/sealed/inputs/start?recycle=1", 422, "unknown-parameter"),
        ("/runs/sealed/layers/up*/out", 404, "layer-not-found"),
        ("/runs/sealed/layers/down*/nothing", 404, "field-not-found"),
        ("/runs/sealed/layers/down*/out?layer=1", 422, "unknown-parameter"),
        ("/runs/sealed/layers/down*/out?axis9=1", 422, "unknown-parameter"),
        ("/runs/sealed/layers/*/out?step=1&reduce=mean&format=csv", 422, "invalid-selection"),
        ("/runs/sealed.npz?layers=up*", 404, "layer-not-found"),
    ],
)
def test_what_no_coordinate_or_layer_is_meant_by_is_told(
    runs: httpx.Client, path: str, status: int, kind: str
) -> None:
    is_problem(runs.get(path), status, kind)
    assert runs.head(path).status_code == status


def test_too_many_layers_are_refused_with_their_size_before_anything_is_read(
    runs: httpx.Client,
) -> None:
    """One layer more than an answer takes; what is stored of it need not be there."""
    nbytes = f"{DOWN.nbytes + DOWN[0, :, :, :2].nbytes:,} bytes"

    for query in ("format=npz", "format=npy", "format=raw"):
        problem = is_problem(
            runs.get(f"/runs/sealed/layers/*/out?{query}"), 413, "answer-too-large"
        )
        assert nbytes in problem["detail"]
        assert "4 layers" in problem["detail"]
        assert "fewer layers" in problem["detail"]
    body = {"slices": [{"field": "out", "layer": "*"}]}
    is_problem(runs.post("/runs/sealed/query", json=body), 413, "answer-too-large")


def test_an_accidental_read_of_triangle_attention_is_refused(
    folder_store: Store, serve: Serve
) -> None:
    """17 GB a layer, of which nothing is stored but what the commits say: nothing is read."""
    shape = (1024, 4, 1024, 1024)
    values = np.broadcast_to(np.float32(0), shape)
    layers = ("pair.2", "pair.10")
    run = Builder(folder_store).declare(
        *(
            spec_of("attention", values, place=Place.LAYERS, layer=one, block=(1, *shape[1:]))
            for one in layers
        )
    )
    for one in layers:
        blocks = ((1 << 20,) * shape[0],)
        run.commit(
            TileColumns(
                field=f"layers/{one}/attention", step=(0,), tile=(0,), samples=(0,),
                nbytes=(shape[0] << 20,), crc32c=(1,), crc32=(1,), blocks=blocks,
            ),
            coordinates=(StepColumn(name="recycle", dtype="int64", step=(0,), value=(2,)),),
        )  # fmt: skip
    with httpx.Client(base_url=serve(folder_store)) as http:
        for layer, nbytes in (("pair.2", values.nbytes), ("pair.*", 2 * values.nbytes)):
            for query in ("format=raw", "format=json", "reduce=mean", "reduce=mean&over=axis0"):
                answer = http.get(f"/runs/run/layers/{layer}/attention?recycle=2&{query}")
                problem = is_problem(answer, 413, "answer-too-large")
                assert f"{nbytes:,} bytes" in problem["detail"]
                assert "axis0s=0:" in problem["detail"]
        is_problem(http.get("/runs/run/layers/pair.*/attention?step=0&top=9"), 413)
        body = {"slices": [{"field": "attention", "layer": "pair.*"}]}
        is_problem(http.post("/runs/run/query", json=body), 413, "answer-too-large")


def test_a_run_that_grows_is_chosen_from_as_far_as_it_is(folder_store: Store, serve: Serve) -> None:
    run = Builder(folder_store, samples=SAMPLES).declare(spec_of("score", SCORE[0], tile=6))
    with httpx.Client(base_url=serve(folder_store)) as http:
        tags = []
        for step in range(3):
            column = StepColumn(name="loop", dtype="int64", step=(step,), value=(step // 2,))
            run.put_step("trace/score", SCORE[step], step).commit(coordinates=(column,))
            answer = http.get("/runs/run/fields/score?loop=0&format=npy")
            np.testing.assert_array_equal(array_of(answer), SCORE[: min(step + 1, 2)])
            tags.append(answer.headers["etag"])
        assert tags[0] != tags[1] == tags[2]
        assert "immutable" not in answer.headers["cache-control"]
        is_problem(http.get("/runs/run/fields/score?loop=2"), 404, "nothing-matches")


def test_a_zip_of_members_keeps_the_names_of_layers(runs: httpx.Client) -> None:
    answer = runs.get("/runs/sealed/layers/[dm]*/out?step=0&format=npz")

    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None
    assert int(answer.headers["content-length"]) == len(answer.content)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["recycle", "timestep", "class", "plate", "step.both", "sample.both"]),
    text=st.text(max_size=12) | st.from_regex(r"[-+.,:0-9einf ]{0,12}", fullmatch=True),
    layer=st.sampled_from(["downs.2", "downs.*"]) | st.text("*?[]!-.adn0", min_size=1, max_size=6),
)
def test_whatever_is_asked_of_a_coordinate_is_answered_or_told(
    runs: httpx.Client, name: str, text: str, layer: str
) -> None:
    query = {name: text, "format": "npz"}
    for path in ("fields/score", f"layers/{quote(layer, safe='')}/out"):
        answer = runs.get(f"/runs/sealed/{path}", params=query)
        if answer.status_code != 200:
            assert answer.status_code in (404, 422), answer.text
            is_problem(answer, answer.status_code)


def test_coordinates_are_described_as_parameters_of_any_name(runs: httpx.Client) -> None:
    paths = runs.get("/openapi.json").json()["paths"]

    for path in ("/fields/{field}", "/layers/{layer}/{field}", "/steps", "/samples", ".npz"):
        listed = paths[f"/runs/{{run}}{path}"]["get"]["parameters"]
        (described,) = [one for one in listed if one["name"] == "coordinates"]
        assert described["explode"] is True
        assert described["schema"]["additionalProperties"] == {"type": "string"}
        assert "recycle=2" in described["description"]
