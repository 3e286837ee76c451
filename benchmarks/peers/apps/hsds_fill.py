"""Put the run into a running HSDS by its own client, and print the id of the dataset.

Called by the Python of its environment: ``hsds_fill.py URL``.
"""

import os
import sys
from contextlib import suppress

import h5pyd
import numpy as np

TRUTH = np.load(f"{os.environ['PEER_DATA']}/truth.npy", mmap_mode="r")
LOGIN = {"endpoint": sys.argv[1], "username": "admin", "password": "admin"}

for folder in ("/home/", "/home/admin/"):
    with suppress(OSError):  # it is there already
        h5pyd.Folder(folder, mode="x", **LOGIN)
with h5pyd.File("/home/admin/run.h5", "w", **LOGIN) as file:
    dataset = file.create_dataset(
        "score_matrix", shape=TRUTH.shape, dtype=TRUTH.dtype, chunks=(1, *TRUTH.shape[1:])
    )
    for number, step in enumerate(TRUTH):
        dataset[number] = np.asarray(step)
    found = dataset.id.uuid
# The client sends what it holds when the file closes.
print(found)
