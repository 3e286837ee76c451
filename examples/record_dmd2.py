"""Record the activations of a DMD2-like sampler, as a user would.

``python record_dmd2.py STORE --run ID`` samples batch by batch and records what the chosen layers
gave out at each noise level, and the images. Killed and started again, it goes on where it stood.
``--guidance 1.5`` samples with classifier-free guidance: both halves are recorded.
"""

from __future__ import annotations

import argparse

import torch
from dmd2_model import EDMPrecond, batches, karras, sample

from recorder import TraceRecorder
from recorder.integrations.dmd2 import attach


def main() -> None:
    """Sample and record."""
    parser = argparse.ArgumentParser(description="Record activations of an image model.")
    parser.add_argument("store", help="a path, or a URL such as s3://bucket/archive")
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--layers", default="encoder_bottleneck,midblock")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    # Here comes your own model, or an adapter with register_activation_hooks:
    model = EDMPrecond(arguments.resolution).eval()
    sigmas = karras(arguments.steps)
    labels = torch.randint(
        0, 1000, (arguments.samples,), generator=torch.Generator().manual_seed(arguments.seed)
    )
    metadata = {
        "model": "imagenet",
        "adapter": "dmd2-imagenet-64",
        "seed": arguments.seed,
        "guidance_scale": arguments.guidance,
        "num_steps": arguments.steps,
    }
    with (
        TraceRecorder(
            arguments.store,
            run=arguments.run,
            system="dmd2",
            metadata=metadata,
            steps=arguments.steps,
            samples=arguments.samples,
        ) as rec,
        attach(
            rec, model, arguments.layers.split(","), guidance_scale=arguments.guidance
        ) as attached,
    ):
        for samples in batches(arguments.samples, arguments.batch):
            if not attached.due(samples, arguments.steps):
                continue
            # A seed for each batch: one that is drawn again is the same, wherever one began.
            seed = arguments.seed + samples.start
            generator = torch.Generator().manual_seed(seed)
            told = {"class_id": labels[samples], "seed": seed}
            with attached.batch(samples, sigmas=sigmas, **told) as batch:
                batch.images = sample(model, labels[samples], sigmas, generator, arguments.guidance)


if __name__ == "__main__":
    main()
