"""A small model with the block names, call signature and outputs of DMD2's ImageNet model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return the block's output at its own resolution."""
        if self.scale != 1:
            x = nn.functional.interpolate(x, scale_factor=self.scale)
        return torch.tanh(self.body(x) + embedding.mean(1)[:, None, None, None])


class DhariwalUNet(nn.Module):
    """Encoder and decoder blocks by resolution, as EDM names them."""

    def __init__(self, resolution: int, channels: int, classes: int) -> None:
        super().__init__()
        half = resolution // 2
        self.embed = nn.Linear(classes + 1, channels)
        self.enc = nn.ModuleDict(
            {
                f"{resolution}x{resolution}_conv": Block(3, channels),
                f"{half}x{half}_down": Block(channels, channels, 0.5),
                f"{half}x{half}_block0": Block(channels, 2 * channels),
            }
        )
        self.dec = nn.ModuleDict(
            {
                f"{half}x{half}_in0": Block(2 * channels, 2 * channels),
                f"{resolution}x{resolution}_up": Block(2 * channels, channels, 2.0),
            }
        )
        self.out_conv = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the network's part of the prediction."""
        embedding = self.embed(torch.cat([labels, noise[:, None]], 1))
        for block in (*self.enc.values(), *self.dec.values()):
            x = block(x, embedding)
        prediction: torch.Tensor = self.out_conv(x)
        return prediction


class EDMPrecond(nn.Module):
    """The network with EDM's preconditioning: noisy images in, the prediction out."""

    def __init__(self, resolution: int = 64, channels: int = 8, classes: int = 1000) -> None:
        super().__init__()
        self.resolution, self.classes = resolution, classes
        self.model = DhariwalUNet(resolution, channels, classes)

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predict clean images, shape (sample, channel, row, column), -1 to 1."""
        if class_labels is None:
            class_labels = torch.zeros(len(x), self.classes)
        level = sigma.reshape(-1, 1, 1, 1)
        total = (level**2 + 0.25).sqrt()
        made = self.model(x / total, sigma.reshape(-1).log() / 4, class_labels)
        prediction: torch.Tensor = 0.25 / total**2 * x + 0.5 * level / total * made
        return prediction


def karras(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Return noise levels from large to small, as the sampler takes them."""
    ramp, low, high = torch.linspace(0, 1, steps), sigma_min ** (1 / 7), sigma_max ** (1 / 7)
    levels: list[float] = ((high + ramp * (low - high)) ** 7).tolist()
    return levels


@torch.no_grad()
def sample(
    model: EDMPrecond,
    labels: torch.Tensor,
    sigmas: list[float],
    generator: torch.Generator,
    guidance_scale: float | None = None,
) -> torch.Tensor:
    """Denoise a batch; return its images as uint8 (sample, row, column, channel)."""
    one_hot = torch.eye(model.classes)[labels]
    size = (len(labels), 3, model.resolution, model.resolution)
    x = torch.randn(size, generator=generator) * sigmas[0]
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        level = torch.full((len(labels),), sigma)
        prediction = model(x, level, one_hot)
        if guidance_scale is not None:
            without = model(x, level, torch.zeros_like(one_hot))
            prediction = without + guidance_scale * (prediction - without)
        x = prediction + following * torch.randn(size, generator=generator)
    images: torch.Tensor = ((x + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1)
    return images


def batches(total: int, batch: int) -> Iterator[slice]:
    """Yield the samples of each batch."""
    for start in range(0, total, batch):
        yield slice(start, min(start + batch, total))
