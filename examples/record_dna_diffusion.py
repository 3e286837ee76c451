"""Record every step of DNA-Diffusion's guided sampling, as a user would.

``python record_dna_diffusion.py STORE --run ID`` samples several cell types batch by batch with
the small stand-in of `dna_diffusion_model`, and records what the network gave for both halves of
each batch, the states, a layer, and the final sequences. Killed and started again, it goes on
with the first batch that is not recorded as a whole.

To record the real model, replace the import of the stand-in and the line that makes it::

    from dnadiffusion.models.diffusion import Diffusion
    from dnadiffusion.models.unet import UNet
"""

from __future__ import annotations

import argparse
import math

import torch
from dna_diffusion_model import Diffusion, UNet

from archive_schema.systems.dna_diffusion import CELL_TYPES
from recorder import TraceRecorder
from recorder.integrations.dna_diffusion import attach, describe


def main() -> None:
    """Sample and record."""
    parser = argparse.ArgumentParser(description="Record a guided sampler of DNA.")
    parser.add_argument(
        "store",
        help="a path, or a URL such as s3://bucket/archive; TRACE_ARCHIVE_STORE_* and AWS_*"
        " variables say how it is reached",
    )
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--samples", type=int, default=20, help="of each cell type")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--length", type=int, default=200, help="bases; a multiple of 4")
    parser.add_argument("--guidance", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    diffusion = Diffusion(UNet(length=arguments.length), arguments.steps).eval()
    with (
        TraceRecorder(
            arguments.store,
            run=arguments.run,
            system="dna-diffusion",
            metadata=describe(diffusion, cell_types=CELL_TYPES, guidance_scale=arguments.guidance),
            steps=arguments.steps,
            samples=arguments.samples * len(CELL_TYPES),
            # The last batch of each cell type may be short, and batches are whole tiles.
            tile=math.gcd(arguments.samples, arguments.batch),
        ) as rec,
        attach(
            rec,
            diffusion,
            cell_types=CELL_TYPES,
            keep=("x", "eps", "x_T", "tokens", "cross"),
            layers={"mid_block1": {"every": 10, "dtype": "float16"}},
        ) as attached,
    ):
        for class_id in CELL_TYPES:
            for start in range(0, arguments.samples, arguments.batch):
                count = min(arguments.batch, arguments.samples - start)
                seed = attached.next_sample
                if attached.due(count, seed=seed):
                    torch.manual_seed(seed)
                    classes = torch.full((count,), float(class_id))
                    diffusion.sample(classes, (count, 1, 4, arguments.length), arguments.guidance)


if __name__ == "__main__":
    main()
