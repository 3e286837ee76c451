"""Writes small runs through the format itself, and remembers what they must give back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.codecs import encode_tile
from archive_schema.documents import document_bytes
from archive_schema.dtypes import dtype_name, storage_of, to_given, to_stored
from archive_schema.hierarchy import array_documents, group_documents
from archive_schema.layout import (
    array_path,
    choose_block,
    field_path,
    group_path,
    run_prefix,
    seal_key,
    step_position,
    tile_extent,
    tile_key,
    zarr_key,
)
from archive_schema.models import (
    Claim,
    Codec,
    Commit,
    FieldSpec,
    Place,
    RunManifest,
    SampleColumn,
    Seal,
    StepColumn,
    TileColumns,
)
from archive_schema.records import RunRecords, claim_epoch, create_run, declare_field, put_commit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.store import Store

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZSTD: Final = Codec()


def spec_of(
    name: str,
    values: NDArray[Any],
    *,
    place: Place = Place.TRACE,
    layer: str | None = None,
    tile: int = 0,
    block: tuple[int, ...] | None = None,
    source: str | None = None,
    tokens: bool = False,
    bits: bool = False,
    codec: Codec = ZSTD,
    every: int = 1,
    first: int = 0,
    ragged: bool = False,
) -> FieldSpec:
    """Declare a field for *values*, of shape (samples, *tail) or (*tail), without step."""
    storage = storage_of(
        source or dtype_name(values.dtype), tokens=tokens, narrow="bits" if bits else "widen"
    )
    tail = values.shape[1:] if tile else values.shape
    within = (tile, *tail) if tile else tail
    stepped = (Place.TRACE, Place.LAYERS)
    lead = (("step",) if place in stepped else ()) + (("sample",) if tile else ())
    axes = tuple(f"axis{at}" for at in range(len(tail)))
    return FieldSpec(
        place=place, layer=layer, name=name, dims=(*lead, *axes),
        tail=() if ragged else tail, dtype=storage.dtype, stored_dtype=storage.stored,
        source_dtype=storage.source, encoding=storage.encoding, tile=tile,
        block=() if ragged else (block or choose_block(within, 2)), codec=codec,
        every=every, first=first, ragged=ragged,
    )  # fmt: skip


class Builder:
    """One run being written; every `put` is committed at once.

    `given` holds, by path, step and tile, the values as a reader must get them.
    """

    def __init__(
        self,
        store: Store,
        run_id: str = "run",
        *,
        uid: str = "u1",
        steps: int | tuple[int, ...] | None = None,
        samples: int | None = None,
    ) -> None:
        self.store = store
        self.manifest = RunManifest(
            id=run_id, uid=uid, created=NOW, steps=steps, samples=samples, system="generic"
        )
        self.specs: dict[str, FieldSpec] = {}
        self.given: dict[tuple[str, int, int], NDArray[Any]] = {}
        self._sequence = 0
        create_run(store, self.manifest)
        self.epoch = claim_epoch(store, run_id, Claim(writer="main", epoch=0, nonce="n", time=NOW))

    def declare(self, *specs: FieldSpec) -> Self:
        """Declare fields, with the Zarr documents of those that are not ragged."""
        for spec in specs:
            declare_field(self.store, self.manifest.id, spec)
            self.specs[field_path(*spec.address)] = spec
        return self

    def zarr(self, *, steps: int, samples: int) -> Self:
        """Write the Zarr documents of all declared fields that are not ragged."""
        documents = group_documents([group_path(spec) for spec in self.specs.values()])
        for spec in self.specs.values():
            if not spec.ragged:
                documents |= array_documents(spec, steps=steps, samples=samples)
        for key, data in documents.items():
            self.store.write(zarr_key(self.manifest.id, key), data)
        return self

    def key(self, path: str, step: int = 0, tile: int = 0) -> str:
        """Return the key of one tile."""
        spec = self.specs[path]
        position = step if spec.ragged else step_position(self.manifest, spec, step)
        return tile_key(self.manifest.id, spec, position or 0, tile)

    def columns(self, path: str, step: int, tile: int, values: NDArray[Any]) -> TileColumns:
        """Store one tile and return what a commit says of it."""
        spec = self.specs[path]
        stored = to_stored(values, spec)
        block = choose_block(values.shape, 2) if spec.ragged else spec.block
        encoded = encode_tile(stored, spec, block)
        if encoded.data:
            self.store.write(self.key(path, step, tile), encoded.data)
        self.given[path, step, tile] = to_given(stored, spec)
        return TileColumns(
            field=path, step=(step,), tile=(tile,), samples=(len(values) if spec.tile else 0,),
            nbytes=(len(encoded.data),), crc32c=(encoded.crc32c,), crc32=(encoded.crc32,),
            blocks=(encoded.blocks,), shape=(values.shape,) if spec.ragged else None,
            block=(block,) if spec.ragged else None,
        )  # fmt: skip

    def commit(
        self,
        *tiles: TileColumns,
        coordinates: tuple[StepColumn, ...] = (),
        samples: tuple[SampleColumn, ...] = (),
    ) -> Self:
        """Make tiles visible."""
        put_commit(
            self.store,
            self.manifest.id,
            Commit(
                writer="main", epoch=self.epoch.epoch, sequence=self._sequence, time=NOW,
                tiles=tiles, steps=coordinates, samples=samples,
            ),
        )  # fmt: skip
        self._sequence += 1
        return self

    def put(self, path: str, values: NDArray[Any], step: int = 0, tile: int = 0) -> Self:
        """Store one tile and commit it."""
        return self.commit(self.columns(path, step, tile, values))

    def put_step(self, path: str, values: NDArray[Any], step: int = 0) -> Self:
        """Store all samples of a step, cut into tiles, in one commit."""
        size = self.specs[path].tile
        cuts = range(0, len(values), size)
        return self.commit(
            *(self.columns(path, step, n, values[at : at + size]) for n, at in enumerate(cuts))
        )

    def seal(self) -> Self:
        """Seal the run, without the Zarr arrays that a recorder adds then."""
        ledger = RunRecords(self.store, self.manifest.id).ledger
        data = document_bytes(ledger.index())
        crc = crc32c(data)
        name = f"index-{crc:08x}.json"
        self.store.create(f"{run_prefix(self.manifest.id)}/{name}", data)
        fields = ledger.fields.values()
        seal = Seal(
            time=NOW, index=name, index_crc32c=crc, samples=ledger.samples,
            tiles=sum(f.count for f in fields), nbytes=sum(f.nbytes for f in fields),
        )  # fmt: skip
        self.store.create(seal_key(self.manifest.id), document_bytes(seal))
        return self

    def whole(self, path: str, steps: list[int], samples: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return values of shape (steps, samples, *tail) and which of them are recorded."""
        spec = self.specs[path]
        dtype = np.dtype(spec.dtype)
        lead = (samples,) if spec.tile else ()
        nothing = np.nan if dtype.kind == "f" else dtype.type()
        values = np.full((len(steps), *lead, *spec.tail), nothing, dtype)
        mask = np.zeros((len(steps), *lead), bool)
        for (where, step, tile), part in self.given.items():
            if where == path and step in steps:
                start = tile_extent(spec, tile, samples)[0]
                at = (steps.index(step), *((slice(start, start + len(part)),) if lead else ()))
                values[at] = part
                mask[at] = True
        return values, mask


def array_key(builder: Builder, path: str) -> str:
    """Return the path of a field's Zarr array in the store."""
    return zarr_key(builder.manifest.id, array_path(builder.specs[path]))
