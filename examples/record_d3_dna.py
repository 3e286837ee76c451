"""Record every step of a D3-DNA-like sampler, as a user would.

``python record_d3_dna.py STORE --run ID`` trains the small sampler of `dna_sampler`, samples
batch by batch, and records what a step saw and did, what the network's blocks gave out, and
the final sequences. Killed and started again on the same machine, it draws the same numbers
and goes on where it stood.
"""

from __future__ import annotations

import argparse

import torch
from dna_sampler import DATA, GeometricNoise, Sampler, encode, read_fasta, train

from recorder import TraceRecorder


def main() -> None:
    """Sample and record."""
    parser = argparse.ArgumentParser(description="Record a sampler of regulatory DNA.")
    parser.add_argument(
        "store",
        help="a path, or a URL such as s3://bucket/archive; TRACE_ARCHIVE_STORE_* and AWS_*"
        " variables say how it is reached",
    )
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--training", type=int, default=300, help="iterations")
    arguments = parser.parse_args()
    real, noise = encode(read_fasta(DATA), length=200), GeometricNoise()
    network = train(real, noise, iterations=arguments.training)
    sampler = Sampler(network, noise, steps=arguments.steps, length=real.shape[1])
    metadata = {
        "dataset": "regulatory-dna",
        "architecture": "convolutional",
        "save_oracle_mse": False,
        "noise_schedule": {
            "type": "geometric",
            "sigma_min": noise.sigma_min,
            "sigma_max": noise.sigma_max,
        },
    }
    with TraceRecorder(
        arguments.store,
        run=arguments.run,
        system="d3-dna",
        metadata=metadata,
        steps=arguments.steps,
        samples=arguments.samples,
    ) as rec:
        axes = ("sample", "position", "channel")
        rec.attach(network, {"blocks.*": {"every": 8, "dtype": "float16", "dims": axes}})
        for start in range(0, arguments.samples, arguments.batch):
            samples = slice(start, min(start + arguments.batch, arguments.samples))
            generator = torch.Generator().manual_seed(start)
            for step in sampler.steps(samples.stop - samples.start, generator):
                rec.record(
                    step.index,
                    samples=samples,
                    timestep=step.t,
                    noise_level=step.sigma,
                    noise_rate=step.rate,
                    sequence=step.x,
                    # In half precision, as upstream keeps them.
                    score_matrix=step.score.half(),
                    prob_matrix=step.prob.half(),
                )
            final = sampler.denoise(step.next_x, generator)
            rec.outputs(samples=samples, final_sequence=final)


if __name__ == "__main__":
    main()
