"""What packages register for systems is found by name; one that is broken harms no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from archive_schema.errors import InvalidInputError
from archive_schema.systems import SystemDeclaration, system, system_names
from archive_schema.systems.registered import Registered
from server.exporters import formats_of, tree_formats

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "trace_archive.tried"
OWN = {"generic": "archive_schema.systems.generic:SYSTEM"}
ENTRIES = f"""[{GROUP}]
absent = no_such_module:SYSTEM
other = json:JSONDecoder
generic = archive_schema.systems.batchie:SYSTEM
batchie = archive_schema.systems.batchie:SYSTEM
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registered[SystemDeclaration]:
    """Install a package with good entries and bad ones."""
    about = tmp_path / "tried-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tried\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    return Registered(GROUP, SystemDeclaration, OWN)


def test_names_are_known_before_anything_is_imported(
    registered: Registered[SystemDeclaration],
) -> None:
    assert registered.names() == ["absent", "batchie", "generic", "other"]
    assert registered.find("nowhere") is None


def test_what_is_asked_for_is_found_beside_what_is_broken(
    registered: Registered[SystemDeclaration],
) -> None:
    found = registered.find("batchie")

    assert found is not None
    assert found.name == "batchie"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "no_such_module:SYSTEM cannot be imported"),
        ("other", "expected json:JSONDecoder to be a SystemDeclaration, got a type"),
        ("generic", "expected one, found archive_schema.systems.generic:SYSTEM and"),
    ],
)
def test_what_is_broken_is_refused_when_it_is_asked_for(
    registered: Registered[SystemDeclaration], name: str, said: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        registered.find(name)

    assert said in str(caught.value)


def test_every_system_of_ours_is_there() -> None:
    """Each is imported when it is asked for: a reference that leads nowhere would show late."""
    assert [system(name).name for name in system_names()] == system_names()
    for name in system_names():
        assert {"h5", "npz"} <= set(formats_of(name))
        assert isinstance(tree_formats(name), list)
