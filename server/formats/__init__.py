"""Formats of an answer: which one is wanted, and its bytes, a bounded part at a time."""

from server.formats.encoding import TEXT_FORMATS, encode
from server.formats.negotiation import choose_format
from server.formats.quantised import Quantised, quantised
from server.formats.values import Body, Part, Values, values_of

__all__ = [
    "TEXT_FORMATS",
    "Body",
    "Part",
    "Quantised",
    "Values",
    "choose_format",
    "encode",
    "quantised",
    "values_of",
]
