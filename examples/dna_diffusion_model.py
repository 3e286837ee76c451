"""A small stand-in for DNA-Diffusion's `Diffusion` and `UNet`, which knows of no recorder.

Modules have upstream's names, methods its signatures, and outputs its shapes, but for the number
of channels. The weights are random: what it samples is DNA by its letters alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Change = Callable[[int, int], nn.Module]


class SinusoidalEmbedding(nn.Module):
    """Times (sample,) as sines and cosines (sample, 16)."""

    def forward(self, time: Tensor) -> Tensor:
        """Return waves of eight lengths."""
        waves = torch.exp(torch.arange(8, device=time.device) * (-math.log(1000) / 7))
        angles = time[:, None] * waves
        return torch.cat([angles.sin(), angles.cos()], -1)


class ResnetBlock(nn.Module):
    """Two convolutions, of which the second knows the time and the class."""

    def __init__(self, channels_in: int, channels: int, condition: int) -> None:
        super().__init__()
        self.mlp = nn.Linear(condition, channels)
        self.block1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.res_conv = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (sample, channel, row, column) with as many rows and columns as *x*."""
        hidden = torch.tanh(self.block1(x)) + self.mlp(condition)[:, :, None, None]
        after: Tensor = torch.tanh(self.block2(hidden)) + self.res_conv(x)
        return after


class Residual(nn.Module):
    """Adds what *fn* makes of its input to the input."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        after: Tensor = x + self.fn(x)
        return after


class CrossAttention(nn.Module):
    """One head, from the four rows of a sequence to those of its condition."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(length, 64, bias=False)
        self.to_kv = nn.Linear(length, 128, bias=False)
        self.to_out = nn.Linear(64, length)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (sample, row, position)."""
        keys, values = self.to_kv(context).chunk(2, dim=-1)
        weights = torch.softmax(self.to_q(x) @ keys.transpose(1, 2) / 8, -1)
        after: Tensor = self.to_out(weights @ values)
        return after


class UNet(nn.Module):
    """Says which noise is in x.

    Gives a tuple of noise and cross map while `output_attention` is set, and the noise alone
    otherwise.
    """

    def __init__(self, dim: int = 8, *, length: int = 200, num_classes: int = 10) -> None:
        super().__init__()
        condition = 4 * length
        self.output_attention = False
        self.init_conv = nn.Conv2d(1, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, condition)
        )
        self.label_emb = nn.Embedding(num_classes, condition)
        widths = [(dim, dim), (dim, 2 * dim), (2 * dim, 4 * dim)]
        halve: Change = partial(nn.Conv2d, kernel_size=2, stride=2)
        double: Change = partial(nn.ConvTranspose2d, kernel_size=2, stride=2)
        same: Change = partial(nn.Conv2d, kernel_size=3, padding=1)
        block = partial(ResnetBlock, condition=condition)
        self.downs = nn.ModuleList(
            nn.ModuleList(
                [block(a, a), block(a, a), Residual(nn.Conv2d(a, a, 1)), change(a, b)],
            )
            for (a, b), change in zip(widths, (halve, halve, same), strict=True)
        )
        self.mid_block1 = block(4 * dim, 4 * dim)
        self.mid_attn = Residual(nn.Conv2d(4 * dim, 4 * dim, 1))
        self.mid_block2 = block(4 * dim, 4 * dim)
        self.ups = nn.ModuleList(
            nn.ModuleList(
                [block(a + b, b), block(a + b, b), Residual(nn.Conv2d(b, b, 1)), change(b, a)],
            )
            for (a, b), change in zip(reversed(widths), (double, double, same), strict=True)
        )
        self.final_res_block = block(2 * dim, dim)
        self.final_conv = nn.Conv2d(dim, 1, 1)
        self.cross_attn = CrossAttention(length)

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Take x (sample, 1, 4, position), times and class ids (sample,); keep the shape of x."""
        x = first = self.init_conv(x)
        condition = self.time_mlp(time) + self.label_emb(classes)
        passed: list[Tensor] = []
        for stage in self.downs:
            block1, block2, attention, change = stage.children()
            x = block1(x, condition)
            passed.append(x)
            x = attention(block2(x, condition))
            passed.append(x)
            x = change(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, condition)), condition)
        for stage in self.ups:
            block1, block2, attention, change = stage.children()
            x = block1(torch.cat([x, passed.pop()], 1), condition)
            x = attention(block2(torch.cat([x, passed.pop()], 1), condition))
            x = change(x)
        x = self.final_res_block(torch.cat([x, first], 1), condition)
        x = self.final_conv(x)
        rows = condition.view(len(x), 4, -1)
        cross: Tensor = self.cross_attn(x[:, 0], context=rows)[:, None]
        return (x + cross, cross) if self.output_attention else x + cross


class Diffusion(nn.Module):
    """Samples by denoising, guided by class.

    Half of a doubled batch is told its classes, the other class 0, which is none; what the first
    says more than the second counts ``1 + cond_weight`` times.
    """

    betas: Tensor

    def __init__(
        self, model: nn.Module, timesteps: int = 50, beta_start: float = 1e-4, beta_end: float = 0.2
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.timesteps = timesteps
        self.register_buffer("betas", torch.linspace(beta_start, beta_end, timesteps))

    @torch.no_grad()
    def sample(
        self, classes: Tensor, shape: tuple[int, ...], cond_weight: float
    ) -> list[NDArray[np.float32]]:
        """Return the states after each step, largest timestep first."""
        return self.sample_cross(classes, shape, cond_weight)[0]

    @torch.no_grad()
    def sample_cross(
        self, classes: Tensor, shape: tuple[int, ...], cond_weight: float
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Return the states, and the cross maps of the conditional half, after each step."""
        x = torch.randn(shape, device=self.betas.device)
        told = torch.cat([torch.ones_like(classes), torch.zeros_like(classes)])
        images, maps = [], []
        for t_index in reversed(range(self.timesteps)):
            x, cross = self.p_sample_guided(
                x=x,
                classes=classes.repeat(2),
                t=torch.full((len(x),), t_index, device=x.device),
                t_index=t_index,
                context_mask=told,
                cond_weight=cond_weight,
            )
            images.append(x.cpu().numpy())
            maps.append(cross.cpu().numpy())
        return images, maps

    @torch.no_grad()
    def p_sample_guided(  # noqa: PLR0917  upstream's signature
        self,
        x: Tensor,
        classes: Tensor,
        t: Tensor,
        t_index: int,
        context_mask: Tensor,
        cond_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Take one step: x at timestep *t* to x before it, and the cross map."""
        self.model.output_attention = True
        noise, cross = self.model(
            x.repeat(2, 1, 1, 1), time=t.repeat(2), classes=(classes * context_mask).long()
        )
        self.model.output_attention = False
        conditional, unconditional = noise.chunk(2)
        guided = (1 + cond_weight) * conditional - cond_weight * unconditional
        kept = torch.cumprod(1 - self.betas, 0)
        beta = self.betas[t_index]
        mean = (1 / (1 - beta)).sqrt() * (x - beta * guided / (1 - kept[t_index]).sqrt())
        if t_index == 0:
            return mean, cross[: len(x)]
        variance = beta * (1 - kept[t_index - 1]) / (1 - kept[t_index])
        return mean + variance.sqrt() * torch.randn_like(x), cross[: len(x)]
