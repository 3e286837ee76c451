"""Record D3-DNA's own sampling loop, which knows of no recorder.

``python record_d3_predictor.py STORE --run ID`` samples with a small random network. What is above
`main` has the names, signatures and shapes of D3-DNA's library; with it installed, import them
from there and keep `main`. Killed and started again, it goes on where it stood.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recorder import TraceRecorder
from recorder.integrations.d3_dna import attach

if TYPE_CHECKING:
    from collections.abc import Callable

    ScoreFn = Callable[[Tensor, Tensor, Tensor], Tensor]


class GeometricNoise:
    """Noise level and rate at time t, shaped like it."""

    def __init__(self, sigma_min: float = 1e-4, sigma_max: float = 20.0) -> None:
        self.sigmas = (sigma_min, sigma_max)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return sigma(t) and its derivative."""
        low, high = self.sigmas
        level = low ** (1 - t) * high**t
        return level, level * (math.log(high) - math.log(low))


class UniformGraph:
    """Any letter turns into any other at one rate."""

    dim = 4

    def sample_limit(self, *shape: int) -> Tensor:
        """Return nothing but noise."""
        return torch.randint(0, self.dim, shape)

    def staggered_score(self, score: Tensor, dsigma: Tensor) -> Tensor:
        """Return the score after the noise *dsigma* is taken back."""
        grown = (-dsigma).exp()[..., None]
        return ((grown - 1) / (self.dim * grown)) * score.sum(-1, keepdim=True) + score / grown

    def transp_transition(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return what *x* may come from."""
        away = (1 - (-sigma[..., None]).exp()) / self.dim
        found = torch.ones(*x.shape, self.dim) * away
        found = found.scatter(-1, x[..., None], torch.zeros_like(found))
        return found.scatter(-1, x[..., None], 1 - found.sum(-1, keepdim=True))


class AnalyticPredictor:
    """Draws each letter from its staggered score times its transition."""

    def __init__(self, graph: UniformGraph, noise: GeometricNoise) -> None:
        self.graph, self.noise = graph, noise

    def update_fn(
        self, score_fn: ScoreFn, x: Tensor, labels: Tensor, t: Tensor, step_size: float
    ) -> Tensor:
        """Return the sequences one step on."""
        sigma = self.noise(t)[0]
        dsigma = sigma - self.noise(t - step_size)[0]
        score = score_fn(x, labels, sigma)
        probs = self.graph.staggered_score(score, dsigma) * self.graph.transp_transition(x, dsigma)
        return sample_categorical(probs)


class Denoiser:
    """Takes the rest of the noise away."""

    def __init__(self, graph: UniformGraph, noise: GeometricNoise) -> None:
        self.graph, self.noise = graph, noise

    def update_fn(self, score_fn: ScoreFn, x: Tensor, labels: Tensor, t: Tensor) -> Tensor:
        """Return the final sequences."""
        sigma = self.noise(t)[0]
        score = score_fn(x, labels, sigma)
        probs = self.graph.staggered_score(score, sigma) * self.graph.transp_transition(x, sigma)
        return sample_categorical(probs)


def sample_categorical(probs: Tensor) -> Tensor:
    """Draw a letter at each position."""
    rows = probs.clamp_min(0).flatten(0, 1)
    return torch.multinomial(rows, 1).view(probs.shape[:2])


class Network(nn.Module):
    """``vocab_embed``, ``blocks.0``, …, ``output_layer``; gives the log-score and nothing else."""

    def __init__(self, hidden: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.vocab_embed = nn.Embedding(4, hidden)
        self.label_map = nn.Linear(2, hidden)
        self.blocks = nn.ModuleList(nn.Conv1d(hidden, hidden, 5, padding=2) for _ in range(blocks))
        self.output_layer = nn.Linear(hidden, 4)

    def forward(
        self,
        indices: Tensor,
        labels: Tensor,
        train: bool,  # noqa: FBT001  upstream's signature
        sigma: Tensor,
    ) -> tuple[Tensor, None]:
        """Return (sample, position, base), 0 at the base that is there."""
        del train
        hidden = self.vocab_embed(indices) + self.label_map(labels)[:, None]
        for block in self.blocks:
            hidden = hidden + torch.tanh(block(hidden.transpose(1, 2))).transpose(1, 2)
        logits = self.output_layer(hidden) / (1 + sigma[:, None, None])
        return logits.scatter(-1, indices[..., None], torch.zeros_like(logits)), None


def pc_sampler(
    model: Network,
    labels: Tensor,
    *,
    length: int,
    steps: int,
    predictor: AnalyticPredictor,
    denoiser: Denoiser,
    eps: float = 1e-5,
) -> Tensor:
    """Run the loop as the library does: so many steps, and one denoising."""

    def score_fn(x: Tensor, labels: Tensor, sigma: Tensor) -> Tensor:
        log_score: Tensor = model(x, labels, False, sigma.reshape(-1))[0]  # noqa: FBT003
        return log_score.exp()

    x = predictor.graph.sample_limit(len(labels), length)
    timesteps = torch.linspace(1, eps, steps + 1)
    dt = (1 - eps) / steps
    with torch.no_grad():
        for i in range(steps):
            t = timesteps[i] * torch.ones(len(x), 1)
            x = predictor.update_fn(score_fn, x, labels, t, dt)
        return denoiser.update_fn(score_fn, x, labels, timesteps[-1] * torch.ones(len(x), 1))


def main() -> None:
    """Sample and record."""
    parser = argparse.ArgumentParser(description="Record D3-DNA's sampling.")
    parser.add_argument("store", help="a path, or a URL such as s3://bucket/archive")
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--length", type=int, default=249)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, graph, noise = Network().eval(), UniformGraph(), GeometricNoise()
    low, high = noise.sigmas
    schedule = {"type": "geometric", "sigma_min": low, "sigma_max": high}
    with (
        TraceRecorder(
            arguments.store,
            run=arguments.run,
            system="d3-dna",
            metadata={"dataset": "deepstarr", "noise_schedule": schedule},
            steps=arguments.steps,
            samples=arguments.samples,
            tile=arguments.batch,
        ) as rec,
        attach(
            rec,
            AnalyticPredictor,
            Denoiser,
            model=model,
            layers={"blocks.*": {"every": 8, "dtype": "float16", "dims": AXES}},
        ) as sampling,
    ):
        for seed in range(0, arguments.samples, arguments.batch):
            count = min(arguments.batch, arguments.samples - seed)
            if sampling.due(count, steps=arguments.steps, seed=seed):
                torch.manual_seed(seed)
                pc_sampler(
                    model,
                    torch.randn(count, 2),
                    length=arguments.length,
                    steps=arguments.steps,
                    predictor=AnalyticPredictor(graph, noise),
                    denoiser=Denoiser(graph, noise),
                )


AXES = ("sample", "channel", "position")
"""Of these blocks. A transformer's have (sample, position, channel), which needs no saying."""


if __name__ == "__main__":
    main()
