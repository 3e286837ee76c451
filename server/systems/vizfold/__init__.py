"""What the server answers of VizFold's runs: attention by kind, layer and head, and structures."""

from server.systems.vizfold.attention import Attention, StrongestEntries, strongest
from server.systems.vizfold.prediction import Prediction
from server.systems.vizfold.structure import pdb_text
from server.systems.vizfold.summary import summarised, summary

__all__ = [
    "Attention",
    "Prediction",
    "StrongestEntries",
    "pdb_text",
    "strongest",
    "summarised",
    "summary",
]
