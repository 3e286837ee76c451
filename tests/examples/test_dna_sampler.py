"""The example sampler: its score, its steps, and whether what it writes is like real DNA."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from examples.dna_sampler import (
    BASES,
    DATA,
    GeometricNoise,
    Sampler,
    ScoreNetwork,
    Step,
    decode,
    encode,
    kmer_distance,
    log_score,
    read_fasta,
    staggered_score,
    train,
    transition,
)

NOISE = GeometricNoise()
LENGTH, STEPS = 200, 32

# Training is quick, but not on a machine that has other things to do.
pytestmark = pytest.mark.timeout(400)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def real() -> Tensor:
    return encode(read_fasta(DATA), LENGTH)


@pytest.fixture(scope="module")
def network(real: Tensor) -> ScoreNetwork:
    return train(real, NOISE)


@pytest.fixture(scope="module")
def trajectory(network: ScoreNetwork) -> list[Step]:
    return list(Sampler(network, NOISE, steps=STEPS, length=LENGTH).steps(128, seeded()))


class TinyWorld:
    """All sequences of three bases, each with a probability of its own: everything is countable."""

    def __init__(self) -> None:
        self.sequences = torch.tensor(list(itertools.product(range(4), repeat=3)))
        weights = torch.rand(64, generator=seeded(), dtype=torch.float64) ** 4
        self.data = weights / weights.sum()

    def channel(self, sigma: float) -> Tensor:
        """Return q(x | clean), shape (x, clean), of whole sequences: from the definition."""
        keep = math.exp(-sigma)
        same = self.sequences[:, None, :] == self.sequences[None, :, :]
        return torch.where(same, keep + (1 - keep) / 4, (1 - keep) / 4).double().prod(-1)

    def noisy(self, sigma: float) -> Tensor:
        """Return the probability of every sequence at noise *sigma*."""
        return self.channel(sigma) @ self.data

    def number(self, x: Tensor) -> Tensor:
        """Return where the sequences *x* stand in `sequences`."""
        return (x * torch.tensor([16, 4, 1])).sum(-1)

    def score(self, sigma: float) -> Tensor:
        """Return p(x with base k at i) / p(x), shape (x, i, k), by looking both up."""
        probability = self.noisy(sigma)
        ratios = torch.empty(64, 3, 4, dtype=torch.float64)
        for position, base in itertools.product(range(3), range(4)):
            other = self.sequences.clone()
            other[:, position] = base
            ratios[:, position, base] = probability[self.number(other)] / probability
        return ratios

    def clean_logits(self, sigma: float) -> Tensor:
        """Return the clean base's log-odds (x, i, k) before x at i itself is counted."""
        posterior = self.channel(sigma) * self.data
        of_base = torch.nn.functional.one_hot(self.sequences, 4).double()
        marginal = torch.einsum("xc,cik->xik", posterior, of_base)
        return marginal.log() - transition(self.sequences, torch.tensor(sigma).double()).log()

    def __call__(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        """Act as a model that has learnt this world perfectly."""
        return self.score(float(sigma[0])).log()[self.number(tokens)].float()


@pytest.mark.parametrize("sigma", [1e-4, 0.03, 0.7, 5.0, 20.0])
def test_the_score_is_the_ratio_of_two_probabilities(sigma: float) -> None:
    """Given the right belief about the clean bases, nothing is lost on the way to the score."""
    world = TinyWorld()
    levels = torch.full((64,), sigma, dtype=torch.float64)

    score = log_score(world.clean_logits(sigma), world.sequences, levels).exp()

    torch.testing.assert_close(score, world.score(sigma), rtol=1e-7, atol=0)


def test_a_step_draws_from_the_exact_distribution_of_the_less_noisy_base() -> None:
    """The analytic update is Bayes' rule: p(base before the last noise | the noisy sequence)."""
    world, before, after = TinyWorld(), 0.4, 1.1
    change = torch.tensor(after - before, dtype=torch.float64)
    clean_to_before = world.channel(before) @ world.data
    joint = world.channel(after - before) * clean_to_before  # (x after, x before)
    of_base = torch.nn.functional.one_hot(world.sequences, 4).double()
    posterior = torch.einsum("ab,bik->aik", joint, of_base) / joint.sum(1)[:, None, None]

    prob = staggered_score(world.score(after), change) * transition(world.sequences, change)

    torch.testing.assert_close(prob, posterior)


def test_a_perfect_score_gives_samples_of_the_data() -> None:
    """Sampling itself adds no error that 20,000 samples of a known distribution would show."""
    world = TinyWorld()
    sampler = Sampler(world, NOISE, steps=64, length=3)
    generator = seeded()

    *_, last = sampler.steps(20_000, generator)
    final = sampler.denoise(last.next_x, generator)

    found = torch.bincount(world.number(final), minlength=64) / len(final)
    # A half of the absolute differences; about 0.02 comes from drawing 20,000 samples.
    assert (found - world.data).abs().sum() / 2 < 0.04


def test_the_noise_schedule_reaches_the_levels_of_the_d3_configurations() -> None:
    assert NOISE.level(1.0) == pytest.approx(20.0)
    assert NOISE.rate(1.0) == pytest.approx(244.12, abs=0.01)
    assert NOISE.level(0.0) == pytest.approx(1e-4)
    slope = (NOISE.level(0.5 + 1e-6) - NOISE.level(0.5 - 1e-6)) / 2e-6
    assert NOISE.rate(0.5) == pytest.approx(slope, rel=1e-6)


def test_every_step_keeps_its_promises(trajectory: list[Step]) -> None:
    """Shapes, dtypes, order and the relations between what a step holds."""
    assert [step.index for step in trajectory] == list(range(STEPS))
    assert trajectory[0].t == 1.0
    for step, following in itertools.pairwise(trajectory):
        assert step.x.shape == step.next_x.shape == (128, LENGTH)
        assert step.x.dtype == step.next_x.dtype == torch.int64
        assert step.score.shape == step.prob.shape == (128, LENGTH, 4)
        assert step.score.dtype == step.prob.dtype == torch.float32
        assert torch.equal(step.next_x, following.x)
        assert step.sigma == NOISE.level(step.t) > following.sigma
        assert step.rate == NOISE.rate(step.t)
        current = step.score.gather(-1, step.x[..., None])
        assert torch.equal(current, torch.ones_like(current))
        assert step.score.min() > 0
        assert step.score.max() <= 4 / step.sigma + 1
        change = torch.tensor(step.sigma - following.sigma)
        expected = staggered_score(step.score, change) * transition(step.x, change)
        assert torch.equal(step.prob, expected)
        drawn = step.prob.gather(-1, step.next_x[..., None])
        assert drawn.min() > 0


def test_the_staggered_score_undoes_the_transition() -> None:
    """Noise added to a distribution over bases is taken away again, whatever the amount."""
    before = torch.rand(2, 3, 4, generator=seeded(), dtype=torch.float64)
    sigma = torch.tensor(0.8, dtype=torch.float64)
    matrix = transition(torch.arange(4)[None], sigma)[0]

    torch.testing.assert_close(staggered_score(before @ matrix, sigma), before)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("k", [3, 4])
def test_samples_come_to_resemble_the_data_as_steps_pass(
    network: ScoreNetwork, trajectory: list[Step], real: Tensor, k: int
) -> None:
    """What the demo shows must be DNA, not noise with a schedule."""
    sampler = Sampler(network, NOISE, steps=STEPS, length=LENGTH)
    final = sampler.denoise(trajectory[-1].next_x, seeded(1))
    by_time = [kmer_distance(step.x, real, k) for step in trajectory[:: STEPS // 8]]
    last = kmer_distance(final, real, k)
    others = [torch.randperm(len(real), generator=seeded(n)) for n in range(4)]
    of_real = [kmer_distance(real[order[:128]], real[order[128:]], k) for order in others]
    shuffled = real.flatten()[torch.randperm(real.numel(), generator=seeded())].view_as(real)
    of_composition = kmer_distance(shuffled, real, k)

    noise, coarse, fine, *rest = (by_time[0], *by_time[2:])
    assert noise > coarse > fine > max(rest)
    assert last < noise / 6
    # About as near as as many real sequences are to the others ...
    assert last < 2.5 * sum(of_real) / len(of_real)
    # ... and it is the order of the bases that was learnt, not how many there are of each.
    assert last < of_composition / 6


def test_samples_are_new_and_differ_from_one_another(trajectory: list[Step], real: Tensor) -> None:
    """A network that had learnt its data by heart would pass every other test."""
    final = trajectory[-1].next_x
    to_data = (final[:, None, :] == real[None]).float().mean(-1).amax(1)
    to_others = (final[:, None, :] == final[None]).float().mean(-1).fill_diagonal_(0).amax(1)

    assert to_data.max() < 0.6
    assert to_others.max() < 0.6


def test_a_seed_decides_everything_and_the_callers_random_numbers_stay(real: Tensor) -> None:
    """A resumed or repeated run must write the same bytes."""
    runs = []
    for callers_seed in (7, 8):
        torch.manual_seed(callers_seed)
        sampler = Sampler(train(real, NOISE, iterations=3), NOISE, steps=3, length=30)
        generator = seeded(5)
        steps = list(sampler.steps(4, generator))
        runs.append((steps, sampler.denoise(steps[-1].next_x, generator)))
        found = torch.rand(1)
        torch.manual_seed(callers_seed)
        assert torch.equal(found, torch.rand(1))

    (first, first_final), (second, second_final) = runs
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.score, other.score)
        assert torch.equal(one.prob, other.prob)
    assert torch.equal(first_final, second_final)
    other = next(iter(sampler.steps(4, seeded(6))))
    assert not torch.equal(other.x, first[0].x)


def test_named_layers_can_be_hooked() -> None:
    """Every layer that the documentation names fires once for each call of the model."""
    network = ScoreNetwork()
    names = ["embed", "sigma_map", *(f"blocks.{n}" for n in range(6)), "output"]
    layers = dict(network.named_modules())
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    for name in names:
        layers[name].register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes[name].append(tuple(output.shape))
        )

    steps = list(Sampler(network, NOISE, steps=2, length=16).steps(3, seeded()))

    assert len(steps) == 2
    for name in names:
        tail = {"sigma_map": (32,), "output": (16, 4)}.get(name, (16, 32))
        assert shapes[name] == [(3, *tail)] * 2


def test_the_data_are_the_real_regulatory_sequences() -> None:
    """Sequences that a model wrote, and random pieces of genome, are in the file but not learnt."""
    sequences = read_fasta(DATA)

    assert len(sequences) == 510
    assert len(read_fasta(DATA, without=())) == 550
    assert {len(sequence) for sequence in sequences} == {200, 249}
    assert decode(encode(sequences[:2], 200)) == sequences[:2]


def test_encoding_cuts_out_the_middle() -> None:
    assert encode(["ACGTA", "TTCGTA"], 3).tolist() == [[1, 2, 3], [3, 1, 2]]


@pytest.mark.parametrize(
    ("sequence", "message"),
    [("ACG", "expected at least 4 bases, got 3"), ("ACGN", r"bases ACGT, got \['N'\]")],
)
def test_what_is_no_sequence_is_refused(sequence: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode([sequence], 4)


def test_a_sampler_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        Sampler(ScoreNetwork(), NOISE, steps=0, length=4)


def test_the_distance_of_kmers_is_in_bits() -> None:
    """0 for the same, 1 for nothing in common, and by hand in between."""
    ab, cd = encode(["AAAA", "CCCC"], 4), encode(["GGGG", "TTTT"], 4)
    assert kmer_distance(ab, ab, 2) == 0
    assert kmer_distance(ab, cd, 2) == pytest.approx(1)
    # AA against half AA, half CC: H(3/4, 1/4) - H(1/2, 1/2) / 2
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert kmer_distance(ab[:1], ab, 2) == pytest.approx(expected)
    assert len(BASES) == 4
