"""Where tiles wait on the local disk while their store is away."""

from recorder.spool.documents import Spooled, SpoolSession, public_options, without_secrets
from recorder.spool.place import Leftover, chosen_place, default_place, leftovers
from recorder.spool.spool import Entry, Spool

__all__ = [
    "Entry",
    "Leftover",
    "Spool",
    "SpoolSession",
    "Spooled",
    "chosen_place",
    "default_place",
    "leftovers",
    "public_options",
    "without_secrets",
]
