"""The Zarr documents of a live run are there before its tiles, whatever the store does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from archive_schema.errors import StorageError
from archive_schema.models import FieldSpec
from recorder.documents import ZarrDocuments
from recorder.opening import manifest_of
from tests.recorder.lines import Line, Weather
from tests.recorder.reading import zarr_array

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.recorder.lines import Fault


@pytest.mark.parametrize("samples", [4, None])
def test_documents_that_the_store_did_not_take_are_put_when_the_tile_comes_again(
    folder_store: Store, samples: int | None
) -> None:
    """Otherwise a plain Zarr reader would miss a field of which tiles are recorded."""
    weather = Weather()
    line: Any = Line(folder_store, weather)
    manifest = manifest_of("r", system="generic", metadata={}, tags=(), steps=2, samples=samples)
    documents = ZarrDocuments(line, manifest)
    spec = FieldSpec(
        name="x", dims=("step", "sample"), dtype="float32", stored_dtype="float32",
        source_dtype="float32", tile=2, block=(2,),
    )  # fmt: skip
    passed: list[Fault] = ["none"]
    attempts = 0
    for attempts in range(20):
        weather.clear()
        weather.expect(passed * attempts)
        weather.expect(["request"])
        try:
            documents.ensure(spec, 0, 2)
        except StorageError:
            continue
        break

    assert attempts > 5
    assert zarr_array(folder_store, "r", "trace/x").shape == (2, samples or 64)
