"""Any sampler: nothing is declared, and axes are named by their lengths or by who records."""

from __future__ import annotations

from typing import Final

from archive_schema.systems.declaration import SystemDeclaration

SYSTEM: Final = SystemDeclaration(name="generic", title="Any sampler")
