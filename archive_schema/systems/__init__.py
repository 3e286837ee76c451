"""What each upstream system's runs declare, by the system's name.

A system outside this project registers a `SystemDeclaration` by its name in the entry-point group
``trace_archive.systems``.
"""

from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration
from archive_schema.systems.registry import system, system_names

__all__ = ["FieldDeclaration", "SystemDeclaration", "system", "system_names"]
