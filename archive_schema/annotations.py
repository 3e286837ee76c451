"""What people say of a run after it was declared: tags and a note, which may change.

Everything else about a run is created once. Annotations lie beside the runs and not in them, so
that one listing tells which of a hundred thousand sealed runs have some, and since when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AwareDatetime, Field

from archive_schema.documents import document_bytes, read_document
from archive_schema.errors import NotFoundError
from archive_schema.layout import ANNOTATIONS
from archive_schema.models import Document

if TYPE_CHECKING:
    from archive_schema.models import RunManifest
    from archive_schema.store import Store

_ENDING: Final = ".json"


class Annotations(Document):
    """Tags and note of one run."""

    uid: str
    """Of the run; a later run of the same id does not inherit them."""
    time: AwareDatetime
    tags: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=200)
        ]
        | None
    ) = None
    """Words to find the run by, in place of the declared ones; None keeps those."""
    note: Annotated[str, Field(max_length=100_000)] = ""


def annotations_key(run_id: str) -> str:
    """Return the key of the `Annotations` of a run."""
    return f"{ANNOTATIONS}/{run_id}{_ENDING}"


def read_annotations(store: Store, manifest: RunManifest) -> Annotations | None:
    """Return what is said of the run, or None.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    try:
        found = read_document(store, annotations_key(manifest.id), Annotations)
    except NotFoundError:
        return None
    return found if found.uid == manifest.uid else None


def put_annotations(store: Store, run_id: str, annotations: Annotations) -> None:
    """Say something of the run; the last word counts."""
    store.write(annotations_key(run_id), document_bytes(annotations))


def annotated_runs(store: Store) -> dict[str, float]:
    """Return the ids of runs of which something is said, with the times by the store's clock."""
    return {
        found.key.removeprefix(f"{ANNOTATIONS}/").removesuffix(_ENDING): found.modified_s
        for found in store.objects(ANNOTATIONS)
    }


def tags_of(manifest: RunManifest, annotations: Annotations | None) -> tuple[str, ...]:
    """Return the tags that the run has now."""
    if annotations is None or annotations.tags is None:
        return manifest.tags
    return annotations.tags
