"""Foreign ZIP files, checked before anything in them is opened."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from recorder.importers.foreign import ForeignFile

_MOST_EXPANDED: Final = 1100
"""Deflate makes at most 1,032 bytes out of one."""
_MOST_MEMBERS: Final = 1_000_000
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 1


def zip_members(file: ForeignFile) -> dict[str, int]:
    """Return the lengths of the members of a ZIP by their names.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for a ZIP that is damaged, encrypted, larger inside than it can be, or that
        has members of one name or with names that lead out of it.
    """
    try:
        with zipfile.ZipFile(file.stream) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError) as error:
        raise file.refuse(f"expected a ZIP file: {error}") from error
    finally:
        file.stream.seek(0)
    names = [info.filename for info in infos]
    leading = next((name for name in names if _leads_out(name)), None)
    odd = next((info for info in infos if info.compress_type not in _METHODS), None)
    bomb = next((i for i in infos if i.file_size > i.compress_size * _MOST_EXPANDED + 1024), None)
    refusals = (
        (len(names) > _MOST_MEMBERS, f"it has more than {_MOST_MEMBERS} members"),
        (len(set(names)) < len(names), "two members have the same name"),
        (leading is not None, f"member {leading!r} leads out of it"),
        (any(i.flag_bits & _ENCRYPTED for i in infos), "it is encrypted"),
        (odd is not None, f"member {odd and odd.filename!r} is neither stored nor deflated"),
        (sum(i.compress_size for i in infos) > file.nbytes, "its members overlap"),
        (bomb is not None, f"member {bomb and bomb.filename!r} expands more than deflate can"),
    )
    for refused, reason in refusals:
        if refused:
            raise file.refuse(f"expected a ZIP of an archive: {reason}")
    return {info.filename: info.file_size for info in infos if not info.is_dir()}


def _leads_out(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/")
