"""A trace archive over HTTP: NumPy arrays that fetch exactly what is asked, and runs to push to."""

from clients.arrays import Array, AsyncArray
from clients.client import ArchiveClient, AsyncArchiveClient
from clients.retry import RetryPolicy
from clients.runs import AsyncRun, Run
from clients.slices import Top

__all__ = [
    "ArchiveClient",
    "Array",
    "AsyncArchiveClient",
    "AsyncArray",
    "AsyncRun",
    "RetryPolicy",
    "Run",
    "Top",
]
