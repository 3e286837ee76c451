"""Record every pass of a prediction by OpenFold, as a user would.

``python record_vizfold.py STORE --run ID`` folds a short sequence with the small stand-in of
`openfold_model`, and records of each block and pass the pair representation, attention within the
MSA's first row, and triangle attention of two residues; then what came out.

To record the real model, take what ``load_models_from_command_line`` gives instead of the stand-in,
and the functions that compute attention::

    from openfold.model import primitives

Kernels that never hold attention weights must be off for it: ``use_lma``, ``use_flash`` and
``use_deepspeed_evo_attention`` are False in the presets. Without ``attention=`` any will do.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from openfold_model import LETTERS, AlphaFold, primitives

from recorder import TraceRecorder
from recorder.integrations.vizfold import attach

SEQUENCE = "MQIFVKTLTGKTITLEVEPS"


def main() -> None:
    """Fold and record."""
    parser = argparse.ArgumentParser(description="Record a prediction by OpenFold.")
    parser.add_argument(
        "store",
        help="a path, or a URL such as s3://bucket/archive; TRACE_ARCHIVE_STORE_* and AWS_*"
        " variables say how it is reached",
    )
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--dtype", default="float16")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = AlphaFold(arguments.blocks).eval()
    metadata = {
        "protein": "1UBQ",
        "model": "stand-in",
        "seed": 0,
        "num_recycles": arguments.passes,
        "dtype": arguments.dtype,
    }
    with (
        torch.no_grad(),
        TraceRecorder(
            arguments.store,
            run=arguments.run,
            system="vizfold",
            metadata=metadata,
            steps=arguments.passes,
        ) as rec,
        attach(
            rec, model, attention=primitives, residues=[5, 17], dtype=arguments.dtype
        ) as attached,
    ):
        rec.inputs(None, sequence=np.array(SEQUENCE), residue_index=np.arange(len(SEQUENCE)))
        aatype = torch.tensor([LETTERS.index(letter) for letter in SEQUENCE])
        outputs = model(aatype, num_iters=arguments.passes)
        attached.outputs(outputs)
    print(f"{attached.passes} passes recorded in {arguments.run}")


if __name__ == "__main__":
    main()
