"""Files are imported from wherever fsspec finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
import pytest

from recorder.importers import import_file
from server.exporters import export
from tests.exporters.ranged import whole
from tests.importers.d3_files import sampled
from tests.importers.strict import hdf5_content

if TYPE_CHECKING:
    from pathlib import Path

    from archive_schema.store import Store
    from server.query import Archive
    from tests.s3_server import S3Server


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_files_without_a_path_are_read_through_their_stream(
    store: Store, archive: Archive, tmp_path: Path, ending: str
) -> None:
    """The HDF5 library opens paths by itself; everything else it must be handed."""
    hdf5 = sampled(2, samples=200).write_hdf5(tmp_path / "file.h5")
    npz = sampled(2, samples=200).write_npz(tmp_path / "file.npz")
    data = {"h5": hdf5, "npz": npz}[ending].read_bytes()
    fsspec.filesystem("memory").pipe(f"/traces/{tmp_path.name}.{ending}", data)

    report = import_file("d3-dna", f"memory://traces/{tmp_path.name}.{ending}", store, "run")

    assert (report.steps, report.samples) == (2, 200)
    assert hdf5_content(whole(export(archive.run("run"), "h5").file)) == hdf5_content(
        hdf5.read_bytes()
    )


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_files_are_read_from_a_bucket(
    store: Store, real_files: Path, s3: S3Server, ending: str
) -> None:
    """In blocks that are kept, because the arrays of an NPZ are read in turns."""
    url = f"{s3.fresh_url()}/trace.{ending}"
    data = (real_files / f"evaluation_visualization_data.{ending}").read_bytes()
    with fsspec.open(url, "wb") as target:
        target.write(data)

    report = import_file("d3-dna", url, store, "run")

    assert (report.generation, report.steps, report.samples, report.odd) == ("B", 32, 8, ())
