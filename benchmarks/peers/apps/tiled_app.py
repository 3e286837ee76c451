"""Tiled without a catalogue database, read by anybody: its quickest way to serve."""

import os
from pathlib import Path

from tiled.adapters.mapping import MapAdapter
from tiled.adapters.zarr import ZarrAdapter
from tiled.config import Authentication
from tiled.server.app import build_app

ARRAY = Path(os.environ["PEER_DATA"]) / "run.zarr" / "score_matrix"

run = MapAdapter({"score_matrix": ZarrAdapter.from_uris(ARRAY.as_uri())})
app = build_app(
    MapAdapter({"run": run}), authentication=Authentication(allow_anonymous_access=True)
)
