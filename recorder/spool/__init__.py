"""Where tiles wait on the local disk while their store is away."""

from recorder.spool.documents import Spooled, SpoolSession, without_secrets
from recorder.spool.place import Leftover, SpoolSettings, chosen_place, forget_refused, leftovers
from recorder.spool.spool import Entry, Spool

__all__ = [
    "Entry",
    "Leftover",
    "Spool",
    "SpoolSession",
    "SpoolSettings",
    "Spooled",
    "chosen_place",
    "forget_refused",
    "leftovers",
    "without_secrets",
]
