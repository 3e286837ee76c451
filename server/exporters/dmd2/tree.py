"""The visualizer's data folder, as its programs write and read it."""

from __future__ import annotations

import json
from functools import partial
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.dmd2 import (
    GUIDANCE,
    IMAGE,
    IMAGE_PATH,
    RECONSTRUCTED,
    RECONSTRUCTED_PATH,
    SAMPLE_ID,
)
from archive_schema.systems.dmd2_files import (
    batch_text,
    embedding_rows,
    info_text,
    record_of,
    table_text,
)
from archive_schema.systems.png import png
from server.exporters.dmd2.sheet import Sheet, SheetRow, sheet_of
from server.exporters.saved_npz import save_npz
from server.exporters.tree import Tree, TreeFile
from server.systems.dmd2 import ImageSet, image_set

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from archive_schema.systems.dmd2_files import Record
    from server.query import RunView
    from server.query.field import FieldView

_GENERATED_KEYS = (
    SAMPLE_ID, "class_label", "model", "generated_from_neighbors", "neighbor_center_umap",
    "trajectory",
)  # fmt: skip


def dmd2_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return ``activations``, ``metadata``, ``images`` and ``embeddings`` of a data set.

    Samples are listed as far as their activations are there.
    """
    return _tree(run, steps, as_told=False)


def told_dmd2_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return the same with ``dataset_info.json`` as it was, whatever it leads to."""
    return _tree(run, steps, as_told=True)


def flattened(field: FieldView, step: int, positions: tuple[int, ...]) -> NDArray[Any]:
    """Return the activations of some samples as files hold them: axes of pictures as one."""
    values = field.select({"step": step, "sample": positions}).array(keep=False)
    if GUIDANCE in field.dims:
        values = values[:, 0]
    return values.reshape(len(values), -1) if values.ndim == 4 else values  # noqa: PLR2004  (B, C, H, W)


def _tree(run: RunView, steps: Collection[int], *, as_told: bool) -> Tree:
    dataset = image_set(run)
    if not dataset.layers and any("trajectory" in one for one in dataset.samples):
        return Tree.of(_generated_files(dataset))
    sheet = sheet_of(dataset, steps, as_told=as_told)
    files = [*_activation_files(dataset, sheet), *_tables(dataset, sheet)]
    if sheet.info is not None:
        labels: Record = {str(at): list(one) for at, one in enumerate(dataset.classes)}
        records = [record_of(row.values, sheet.info.keys) for row in sheet.rows]
        text = info_text(sheet.info, records, labels)
        files.append(_text_file(f"metadata/{dataset.model}/dataset_info.json", text))
    by_path = {
        (field, str(row.values[key])): row.position
        for field, key in ((IMAGE, IMAGE_PATH), (RECONSTRUCTED, RECONSTRUCTED_PATH))
        for row in sheet.rows
        if key in row.values
    }
    for name in (IMAGE, RECONSTRUCTED):
        wanted = {path: at for (field, path), at in by_path.items() if field == name}
        files += _picture_files(dataset.pictures(name), 0, wanted)
    return Tree.of(sorted(files, key=lambda file: file.path), sheet.notes)


def _activation_files(dataset: ImageSet, sheet: Sheet) -> Iterator[TreeFile]:
    names = {str(field.spec.layer): field for field in dataset.layers}
    ordered = [*sheet.files.layers, *(name for name in names if name not in sheet.files.layers)]
    fields = {name: names[name] for name in ordered if name in names}
    for path, rows in sheet.batches().items():
        yield TreeFile(
            f"{path}.npz",
            sum(len(rows) * _sample_nbytes(field) for field in fields.values()),
            _digest([_tile_digest(field, row) for field in fields.values() for row in rows]),
            partial(_write_npz, fields, rows),
        )
        if sheet.files.keys:
            records = [record_of(row.values, sheet.files.keys) for row in rows]
            files = sheet.files.model_copy(update={"layers": tuple(fields)})
            yield _text_file(f"{path}.json", batch_text(files, records))


def _write_npz(fields: dict[str, FieldView], rows: list[SheetRow], target: IO[bytes]) -> None:
    positions = tuple(row.position for row in rows)
    arrays: dict[str, Any] = {
        name: flattened(field, rows[0].step, positions) for name, field in fields.items()
    }
    save_npz(target, arrays, compressed=True)


def _write_empty(target: IO[bytes]) -> None:
    save_npz(target, {}, compressed=True)


def _tables(dataset: ImageSet, sheet: Sheet) -> Iterator[TreeFile]:
    for table in () if dataset.embeddings is None else dataset.embeddings.tables:
        rows = embedding_rows(table, [row.values for row in sheet.rows])
        yield _text_file(f"embeddings/{table.name}.csv", table_text(table.columns, rows))
        if table.parameters is not None:
            yield _text_file(
                f"embeddings/{table.name}.json", json.dumps(table.parameters, indent=2)
            )


def _picture_files(field: FieldView | None, step: int, paths: dict[str, int]) -> Iterator[TreeFile]:
    if field is None:
        return
    there = field.ledger.recorded(field.run.samples, [step])[0]
    for path, position in paths.items():
        if there[position]:
            digest = _digest([_tile_digest(field, SheetRow(step, position, {})), path])
            write = partial(_write_png, field, step, position)
            yield TreeFile(path, _sample_nbytes(field), digest, write)


def _write_png(field: FieldView, step: int, position: int, target: IO[bytes]) -> None:
    lead = {"step": step} if field.stepped else {}
    target.write(png(field.select({**lead, "sample": position}).array(keep=False)))


def _generated_files(dataset: ImageSet) -> Iterator[TreeFile]:
    """Yield the records of samples that were generated in the app, and their pictures."""
    steps: list[tuple[int, str, int]] = []
    finals: dict[str, int] = {}
    for position, sample in enumerate(dataset.samples):
        told = dict(sample)
        finals[str(told.pop(IMAGE_PATH))] = position
        record = record_of(told, (*_GENERATED_KEYS, *sorted(told.keys() - _NOT_KEPT)))
        for key in ("generated_from_neighbors", "neighbor_center_umap", "trajectory"):
            if key in record:
                record[key] = json.loads(str(record[key]))
        path = f"activations/{dataset.model}/{told[SAMPLE_ID]}"
        yield _text_file(f"{path}.json", json.dumps(record, indent=2))
        yield TreeFile(f"{path}.npz", 22, _digest(["empty"]), _write_empty)
        trajectory: Any = record.get("trajectory") or []
        for number, step in enumerate(trajectory):
            if step.get("image_path"):
                steps.append((number, step["image_path"], position))
    yield from _picture_files(dataset.pictures(IMAGE), 0, finals)
    if dataset.run.ledger.at(Place.TRACE, None, IMAGE) is not None:
        field = dataset.run.field(IMAGE)
        for number, path, position in steps:
            yield from _picture_files(field, number, {path: position})


_NOT_KEPT = frozenset((*_GENERATED_KEYS, "class_id", "class", "synset_id", IMAGE_PATH))


def _text_file(path: str, text: str) -> TreeFile:
    data = text.encode()

    def write(target: IO[bytes]) -> None:
        target.write(data)

    return TreeFile(path, len(data), _digest([text]), write)


def _sample_nbytes(field: FieldView) -> int:
    return field.dtype.itemsize * int(np.prod(field.spec.tail, dtype=np.int64))


def _tile_digest(field: FieldView, row: SheetRow) -> str:
    """Return what tells the values of a sample from others: its tile's checksum and its place."""
    tile = row.position // field.spec.tile
    crc32 = field.ledger.table([row.step], [tile])[0, 0, 3]
    return f"{field.run.manifest.uid} {field.path} {row.step} {row.position} {crc32}"


def _digest(said: list[str]) -> str:
    return blake2b("\n".join(said).encode(), digest_size=16).hexdigest()
