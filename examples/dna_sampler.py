"""A small discrete-diffusion sampler over real regulatory DNA, which knows of no recorder.

``python examples/dna_sampler.py`` trains it, samples, and prints how close it comes to the data.

1. *Forward.* Noise of level sigma leaves a base as it is with probability exp(-sigma) and
   replaces it by a uniformly drawn one otherwise. Sigma grows geometrically with the time t.
2. *Score.* For a noisy sequence x, the ratios p(x with base k at position i) / p(x). They
   follow exactly from what the clean base at i may have been; a network learns that.
3. *Reverse.* From random bases at t = 1 downwards, each step draws every base from its
   staggered score times its transition: the analytic update.

This is SEDD (Lou, Meng, Ermon, ICML 2024) with a uniform graph and geometric noise.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    LogScoreModel = Callable[[Tensor, Tensor], Tensor]

BASES: Final = "ACGT"
DATA: Final = Path(__file__).parent / "data" / "regulatory_sequences.fasta"
NOT_REGULATORY: Final = ("random_genome_region", "dna_diffusion_generated")
"""Sources in `DATA` that the sampler is not meant to imitate."""


def read_fasta(path: Path, *, without: Iterable[str] = NOT_REGULATORY) -> list[str]:
    """Read the sequences of *path*, but for those whose header gives a source in *without*."""
    unwanted = {f"source={name}" for name in without}
    records = [record.splitlines() for record in path.read_text("ascii").split(">")[1:]]
    return ["".join(body) for header, *body in records if unwanted.isdisjoint(header.split())]


def encode(sequences: Iterable[str], length: int) -> Tensor:
    """Turn the middle *length* bases of every sequence into tokens (sample, position), int64."""
    rows = []
    for sequence in sequences:
        start = (len(sequence) - length) // 2
        if start < 0:
            raise ValueError(f"expected at least {length} bases, got {len(sequence)}")
        if unknown := set(sequence) - set(BASES):
            raise ValueError(f"expected only the bases {BASES}, got {sorted(unknown)}")
        rows.append([BASES.index(base) for base in sequence[start : start + length]])
    return torch.tensor(rows, dtype=torch.int64)


def decode(tokens: Tensor) -> list[str]:
    """Spell out *tokens*, shape (sample, position)."""
    return ["".join(BASES[token] for token in row) for row in tokens.tolist()]


@dataclass(frozen=True, slots=True)
class GeometricNoise:
    """How much noise a sequence has gathered by the time t, 0 <= t <= 1."""

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def level(self, t: float) -> float:
        """Return sigma(t)."""
        return float(self.sigma_min ** (1 - t) * self.sigma_max**t)

    def rate(self, t: float) -> float:
        """Return the derivative of sigma at *t*."""
        return self.level(t) * math.log(self.sigma_max / self.sigma_min)


def redrawn(sigma: Tensor) -> Tensor:
    """Return how probably noise of level *sigma* draws one certain base anew."""
    # Not 1 - exp(-sigma): in float32 that has lost three digits at the smallest level.
    return -torch.expm1(-sigma) / len(BASES)


def transition(tokens: Tensor, sigma: Tensor) -> Tensor:
    """Return what *tokens* may turn into, or come from: it is symmetric.

    *tokens* have shape (sample, position), *sigma* () or (sample,); the answer has
    (sample, position, base), and sums to 1 over the bases.
    """
    sigma = sigma[..., None, None]
    return torch.exp(-sigma) * functional.one_hot(tokens, len(BASES)) + redrawn(sigma)


def log_score(clean_logits: Tensor, tokens: Tensor, sigma: Tensor) -> Tensor:
    """Turn what the clean bases may have been into the logarithm of the score.

    Parameters
    ----------
    clean_logits : shape (sample, position, base)
        Log-odds of the clean base, to which *tokens* at the position itself are yet to be added.
    tokens : shape (sample, position), int64
        The noisy sequences x.
    sigma : shape (sample,)
        Their noise level.

    Returns
    -------
    Tensor
        Shape (sample, position, base): log p(x with that base there) - log p(x). Exactly 0 at
        the base of x, and everywhere as exact as *clean_logits*.
    """
    sigma = sigma[:, None, None]
    noisy = torch.log(torch.exp(-sigma) * torch.softmax(clean_logits, -1) + redrawn(sigma))
    return noisy - noisy.gather(-1, tokens[..., None])


def staggered_score(score: Tensor, sigma: Tensor) -> Tensor:
    """Apply the inverse of the transition to *score*, shape (sample, position, base)."""
    # In this form, because float32 would lose a nearly flat score in a long step.
    mean = score.mean(-1, keepdim=True)
    return mean + (score - mean) * torch.exp(sigma)


class Block(nn.Module):
    """A residual block that looks once and twice *dilation* bases to either side."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size=5, dilation=dilation, padding="same")
        self.mix = nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """Keep the shape (sample, position, channel); *condition* is (sample, channel)."""
        near = self.conv(self.norm(hidden).transpose(1, 2)).transpose(1, 2)
        update: Tensor = self.mix(functional.gelu(near + condition[:, None, :]))
        return hidden + update


class ScoreNetwork(nn.Module):
    """A convolutional network that gives the log-score of noisy sequences.

    Its layers are ``embed``, ``sigma_map``, ``blocks.0`` to ``blocks.5`` and ``output``. All
    give shape (sample, position, channel), but for ``sigma_map``: (sample, channel).
    """

    def __init__(self, width: int = 32, dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(BASES), width)
        self.sigma_map = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in dilations)
        self.output = nn.Linear(width, len(BASES))

    def clean_logits(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        """Say what the clean bases may have been; see `log_score`."""
        # The logarithm runs from -9 to 3; a fifth of that is what a fresh layer takes well.
        condition = self.sigma_map(torch.stack([torch.exp(-sigma), torch.log(sigma) / 5], -1))
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden, condition)
        logits: Tensor = self.output(hidden)
        return logits

    def forward(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        """Return the log-score (sample, position, base) of *tokens* at noise *sigma* (sample,)."""
        return log_score(self.clean_logits(tokens, sigma), tokens, sigma)


def train(
    tokens: Tensor, noise: GeometricNoise, *, iterations: int = 300, seed: int = 0
) -> ScoreNetwork:
    """Train a network to name the clean bases of noisy *tokens*, shape (sample, position).

    The loss is the cross-entropy of each clean base given the whole noisy sequence. The true
    posterior, for which the score is exact, makes it least. Equal seeds give equal networks on
    one machine with one number of threads.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        network = ScoreNetwork()
    peak, batch = 6e-3, 32
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=iterations)
    for _ in range(iterations):
        clean = tokens[torch.randint(len(tokens), (batch,), generator=generator)]
        spread = (torch.arange(batch) + torch.rand(1, generator=generator)) / batch
        # Before t = 0.3 hardly a base is wrong, after 0.9 hardly one is left: nothing to learn.
        sigma = torch.tensor([noise.level(0.3 + 0.6 * t) for t in spread.tolist()])
        noisy = draw(transition(clean, sigma), generator)
        posterior = network.clean_logits(noisy, sigma) + torch.log(transition(noisy, sigma))
        loss = functional.cross_entropy(posterior.transpose(1, 2), clean)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a base at every position; *weights* (sample, position, base) need not sum to 1."""
    rows = weights.clamp_min(0).flatten(0, 1)
    return torch.multinomial(rows, 1, generator=generator).view(weights.shape[:2])


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step saw and did; `index` counts from 0, the noisiest."""

    index: int
    t: float
    sigma: float
    """Noise level of `x`."""
    rate: float
    """Noise rate: the derivative of sigma at `t`."""
    x: Tensor
    """The sequences **before** the update: shape (sample, position), int64."""
    score: Tensor
    """Shape (sample, position, base), float32: 1 at the base of `x`, elsewhere up to 4 / sigma."""
    prob: Tensor
    """What `next_x` was drawn from, shaped like `score`. It need not sum to 1, and where the
    score is inexact it may lie a little below 0."""
    next_x: Tensor


class Sampler:
    """The reverse process: so many steps from t = 1 to `END`, and one denoising.

    *model* gives the log-score (sample, position, base) of tokens (sample, position) at noise
    levels (sample,), and was trained for *noise*. It runs where the generator's device is.
    """

    END: Final = 1e-5

    def __init__(
        self, model: LogScoreModel, noise: GeometricNoise, *, steps: int, length: int
    ) -> None:
        if steps < 1:
            raise ValueError(f"expected at least 1 step, got {steps}")
        self.model = model
        self.noise = noise
        self.length = length
        self.times = torch.linspace(1, self.END, steps + 1, dtype=torch.float64).tolist()

    def steps(self, batch_size: int, generator: torch.Generator) -> Iterator[Step]:
        """Start a batch from nothing but noise and yield its steps."""
        shape = (batch_size, self.length)
        x = torch.randint(len(BASES), shape, generator=generator, device=generator.device)
        for index, (t, later) in enumerate(pairwise(self.times)):
            sigma = self.noise.level(t)
            score, prob = self._reverse(x, sigma, sigma - self.noise.level(later))
            next_x = draw(prob, generator)
            yield Step(index, t, sigma, self.noise.rate(t), x, score, prob, next_x)
            x = next_x

    def denoise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Remove what noise the last step left in its ``next_x``: the final sequences."""
        sigma = self.noise.level(self.times[-1])
        return draw(self._reverse(x, sigma, sigma)[1], generator)

    def _reverse(self, x: Tensor, sigma: float, removed: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            score = self.model(x, torch.full((len(x),), sigma, device=x.device)).exp()
        change = torch.tensor(removed, device=x.device)
        return score, staggered_score(score, change) * transition(x, change)


def kmer_frequencies(tokens: Tensor, k: int) -> Tensor:
    """Return the share of each of the 4**k runs of *k* bases in *tokens* (sample, position)."""
    place_values = len(BASES) ** torch.arange(k, device=tokens.device)
    numbers = (tokens.unfold(1, k, 1) * place_values).sum(-1).flatten()
    return torch.bincount(numbers, minlength=len(BASES) ** k).double() / len(numbers)


def kmer_distance(tokens: Tensor, reference: Tensor, k: int) -> float:
    """Return the Jensen-Shannon divergence, 0 to 1 bit, of two k-mer frequencies."""
    ours, theirs = kmer_frequencies(tokens, k), kmer_frequencies(reference, k)
    both = ((ours + theirs) / 2).clamp_min(1e-300)
    nats = torch.special.xlogy(ours, ours / both) + torch.special.xlogy(theirs, theirs / both)
    return float(nats.sum() / 2 / math.log(2))


def main() -> None:
    """Train, sample one batch, and print how its 4-mers approach those of the data."""
    parser = argparse.ArgumentParser(description="Sample regulatory DNA by discrete diffusion.")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=128)
    arguments = parser.parse_args()
    real, noise = encode(read_fasta(DATA), length=200), GeometricNoise()
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(train(real, noise), noise, steps=arguments.steps, length=real.shape[1])
    print(f"Divergence of 4-mers from those of {len(real)} real sequences:")
    for step in sampler.steps(arguments.samples, generator):
        if step.index % 8 == 0:
            distance = kmer_distance(step.x, real, 4)
            print(f"step {step.index:4d}, noise {step.sigma:7.4f}: {distance:.4f} bit")
    final = sampler.denoise(step.next_x, generator)
    print(f"final sequences:          {kmer_distance(final, real, 4):.4f} bit")
    print(*decode(final[:3]), sep="\n")


if __name__ == "__main__":
    main()
