"""What a run's Zarr hierarchy has to hold beside its tiles, and whether it does.

Everything follows from the manifest, the declarations and the commits. Of a run that is not
sealed, the lengths of axes that it did not declare do not: they are taken from what is stored,
as far as they hold what is recorded.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from archive_schema.errors import FormatError, NotFoundError
from archive_schema.hierarchy import array_documents, same_metadata, same_values, shape_of
from archive_schema.layout import array_path, group_path, zarr_key
from archive_schema.ledger import Ledger
from recorder.documents import capacity, growing_group
from recorder.maintenance.findings import Finding, Found
from recorder.maintenance.reading import mapped, read_twice
from recorder.sealing import ragged_documents, sealed_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from archive_schema.ledger import FieldLedger
    from archive_schema.models import FieldSpec, RunManifest
    from archive_schema.store import Store
    from recorder.maintenance.survey import Survey

_METADATA: Final = "zarr.json"


def expected_documents(survey: Survey, manifest: RunManifest) -> dict[str, bytes]:
    """Return every object that must lie in the run's hierarchy beside its tiles, by path."""
    if survey.sealed:
        return sealed_documents(manifest, survey.ledger, survey.shards)
    recorded = {path: field for path, field in survey.ledger.fields.items() if field.count}
    return _live_documents(survey, manifest, recorded)


def allowed_paths(survey: Survey, manifest: RunManifest) -> set[str]:
    """Return the paths of everything that may lie there, though nobody may miss it yet."""
    if survey.sealed:
        return set(sealed_documents(manifest, survey.ledger, survey.shards))
    unused = Ledger()
    fields = {
        path: survey.ledger.fields.get(path) or unused.declare(path, spec)
        for path, spec in survey.fields.items()
    }
    paths = {_METADATA, *_live_documents(survey, manifest, fields)}
    if survey.sealing is not None:  # whoever began to seal may have got anywhere
        paths |= sealed_documents(manifest, survey.ledger).keys()
    return paths


def check_documents(
    survey: Survey, manifest: RunManifest, documents: Mapping[str, bytes]
) -> Iterator[Found]:
    """Hold what is stored against what must be there."""
    growing = not survey.sealed and any(map(survey.alive, survey.open_epochs))
    growing = growing and None in (manifest.steps, manifest.samples)
    specs = {
        f"{array_path(spec)}/{_METADATA}": spec
        for spec in (survey.fields.values() if growing else ())
        if not spec.ragged
    }

    def check(path: str) -> Found | None:
        key = zarr_key(survey.run_id, path, survey.zarr)
        array, _, name = path.rpartition("/")

        def compare(data: bytes) -> None:
            if name != _METADATA:
                metadata = documents[f"{array}/{_METADATA}"]
                if not growing and not same_values(metadata, name, data, documents[path]):
                    raise ValueError("it holds other values than the records of the run")
            elif not same_metadata(data, documents[path]) and not (
                growing and _is_between(data, path, specs)
            ):
                raise ValueError("it says something else than the records of the run")

        return _problem(survey.store, key, compare, metadata=name == _METADATA)

    for found in mapped(survey.store, check, sorted(documents)):
        if found is not None:
            yield found


def _problem(
    store: Store, key: str, compare: Callable[[bytes], None], *, metadata: bool
) -> Found | None:
    try:
        read_twice(store, key, compare)
    except NotFoundError:
        lost = Finding.DOCUMENT_LOST if metadata else Finding.COORDINATE_LOST
        return Found(lost, key, "the records of the run tell what must be there", repairable=True)
    except ValueError as error:
        damaged = Finding.DOCUMENT_DAMAGED if metadata else Finding.COORDINATE_DAMAGED
        return Found(damaged, key, str(error), repairable=True)
    return None


def _is_between(data: bytes, path: str, specs: Mapping[str, FieldSpec]) -> bool:
    """Return whether a document is sound, but of a length that a live writer is changing."""
    spec = specs.get(path)
    if spec is None:  # an index coordinate: whoever makes it longer puts two objects
        return path.endswith((f"/step/{_METADATA}", f"/sample/{_METADATA}"))
    try:
        lengths = iter(shape_of(data)[0])
    except FormatError:
        return False
    steps = next(lengths, 0) if spec.place.stepped else 0
    samples = next(lengths, 0) if spec.tile else 0
    return same_metadata(data, array_documents(spec, steps=steps, samples=samples)[path])


def _live_documents(
    survey: Survey, manifest: RunManifest, fields: Mapping[str, FieldLedger]
) -> dict[str, bytes]:
    groups: defaultdict[str, list[FieldSpec]] = defaultdict(list)
    documents: dict[str, bytes] = {}
    for field in fields.values():
        if field.spec.ragged:
            documents |= ragged_documents(manifest, field)
        else:
            groups[group_path(field.spec)].append(field.spec)
    for path, specs in groups.items():
        steps, samples = _lengths(survey, manifest, path, specs)
        documents |= growing_group(manifest, path, specs, steps, samples)
        for spec in specs:
            documents |= array_documents(spec, steps=steps, samples=samples)
    return documents


def _lengths(
    survey: Survey, manifest: RunManifest, path: str, specs: Sequence[FieldSpec]
) -> tuple[int, int]:
    """Return the lengths of a group's axes: declared, or the longest that are stored."""
    ledger = survey.ledger
    reach = ledger.steps[-1] + 1 if ledger.steps else 0
    steps, samples = capacity(manifest, specs[0], reach, ledger.samples)
    if manifest.steps is None:
        axes = [(array_path(spec), 0) for spec in specs if spec.place.stepped]
        steps = max(steps, *(_stored(survey, *one) for one in (*axes, (f"{path}/step", 0))))
    if manifest.samples is None:
        axes = [(array_path(spec), int(spec.place.stepped)) for spec in specs if spec.tile]
        samples = max(samples, *(_stored(survey, *one) for one in (*axes, (f"{path}/sample", 0))))
    return steps, samples


def _stored(survey: Survey, array: str, axis: int) -> int:
    """Return the length of an axis of a stored array; 0 if its metadata cannot be read."""
    try:
        data = survey.store.read(zarr_key(survey.run_id, f"{array}/{_METADATA}", survey.zarr))
        return shape_of(data)[0][axis]
    except (NotFoundError, FormatError, IndexError):
        return 0
