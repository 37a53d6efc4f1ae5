"""Networks of the games with latents: encoders, a decoder of Bernoulli pixels, and AVB's adversary T(x, z).

noise_encoder: (B, *X), (B, E) -> z (B, Z)                   basis_encoder: the same -> (z, mean, variance)
gaussian_encoder: (B, *X) -> (mean, log variance)            bernoulli_decoder: (B, Z) -> logits (B, *X)
adversary: (B, *X), (B, Z) -> T (B,)

ELU throughout, as in the authors' code of AVB (Mescheder et al. 2017, arXiv:1701.04722). `widths` are those of linear
layers, `channels` those of 5x5 convolutions of stride 2 next to the image, each of which halves it (rounding up).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import elu

from ..errors import UserError

Count = Annotated[int, Ge(1)]
Counts = Sequence[Count]

FLOOR = 1e-4  # of a variance


def _linear(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for fan_in, fan_out in pairwise(sizes) for layer in (nn.Linear(fan_in, fan_out), nn.ELU())]


def _sides(sample_shape: Sequence[int], channels: Counts) -> list[list[int]]:
    """(H, W) next to the image and after each of the convolutions."""
    if len(sample_shape) != 3:
        raise UserError(f"channels: {list(channels)} need images; the data is {'x'.join(map(str, sample_shape))}")
    return [[-(-side // 2**layer) for side in sample_shape[1:]] for layer in range(len(channels) + 1)]


class Features(nn.Module):
    """(B, *X) -> (B, `size`): convolutions if there are any, then flat."""

    def __init__(self, sample_shape: Sequence[int], channels: Counts) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.size = math.prod(sample_shape)
        if channels:
            self.size = channels[-1] * math.prod(_sides(sample_shape, channels)[-1])
            for fan_in, fan_out in pairwise([sample_shape[0], *channels]):
                layers += [nn.Conv2d(fan_in, fan_out, 5, 2, 2), nn.ELU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class NoiseEncoder(nn.Module):
    """A sample of q(z|x) from noise beside the features of x: of any law, and without a density."""

    def __init__(
        self,
        sample_shape: Sequence[int],
        z_dim: int,
        eps_dim: int,
        widths: Counts = (64, 64, 64),
        channels: Counts = (),
    ) -> None:
        super().__init__()
        self.features = Features(sample_shape, channels)
        sizes = [self.features.size + eps_dim, *widths]
        self.layers = nn.Sequential(*_linear(sizes), nn.Linear(sizes[-1], z_dim))

    def forward(self, x: Tensor, eps: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([self.features(x), eps], dim=1))
        return out


class BasisEncoder(nn.Module):
    """z = z_0(x) + sum_i a_i(x) v_i(eps_i), from whose form its moments given x follow.

    As in the authors' code: each v_i is a network of its own (`basis_widths`) on its own part of the noise, E / `bases`
    numbers; a_i = elu(. - 5) + 1 > 0 is small at first; the moments of v_i are those over the batch.
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        z_dim: int,
        eps_dim: int,
        widths: Counts = (768,),
        channels: Counts = (),
        bases: Count = 16,
        basis_widths: Counts = (128, 128, 128),
    ) -> None:
        super().__init__()
        if eps_dim % bases:
            raise UserError(f"bases: {bases} must divide eps_dim, {eps_dim}, into equal parts")
        self.bases, self.z_dim = bases, z_dim
        self.features = Features(sample_shape, channels)
        sizes = [self.features.size, *widths]
        self.trunk = nn.Sequential(*_linear(sizes))
        self.offset = nn.Linear(sizes[-1], z_dim)
        nn.init.trunc_normal_(self.offset.weight, std=1e-5, a=-2e-5, b=2e-5)
        self.scale = nn.Linear(sizes[-1], bases * z_dim)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([eps_dim // bases, *basis_widths]):
            layers += [Linears(bases, fan_in, fan_out), nn.ELU()]
        self.basis = nn.Sequential(*layers, Linears(bases, [eps_dim // bases, *basis_widths][-1], z_dim))

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(self.features(x))
        a = elu(self.scale(features).reshape(-1, self.bases, self.z_dim) - 5) + 1
        v = self.basis(eps.reshape(len(eps), self.bases, -1).transpose(0, 1)).transpose(0, 1)
        offset = self.offset(features)
        variance = (a.square() * v.var(0, correction=0)).sum(1) + FLOOR
        return offset + (a * v).sum(1), offset + (a * v.mean(0)).sum(1), variance


class Linears(nn.Module):
    """Linear layers side by side, (G, B, fan_in) -> (G, B, fan_out), initialised as `nn.Linear` is."""

    def __init__(self, groups: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(groups, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class GaussianEncoder(nn.Module):
    """The moments of a q(z|x) with independent Gaussian coordinates."""

    def __init__(
        self, sample_shape: Sequence[int], z_dim: int, widths: Counts = (64, 64, 64), channels: Counts = ()
    ) -> None:
        super().__init__()
        self.features = Features(sample_shape, channels)
        sizes = [self.features.size, *widths]
        self.layers = nn.Sequential(*_linear(sizes), nn.Linear(sizes[-1], 2 * z_dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(self.features(x)).chunk(2, dim=1)
        return mean, log_variance


class BernoulliDecoder(nn.Module):
    """The logits of independent pixels. `channels` from the image inwards, as those of an encoder."""

    def __init__(
        self, z_dim: int, sample_shape: Sequence[int], widths: Counts = (64, 64, 64), channels: Counts = ()
    ) -> None:
        super().__init__()
        self.sample_shape = tuple(sample_shape)
        sizes = [z_dim, *widths]
        if not channels:
            self.layers = nn.Sequential(*_linear(sizes), nn.Linear(sizes[-1], math.prod(sample_shape)))
            return
        sides = _sides(sample_shape, channels)
        sizes.append(channels[-1] * math.prod(sides[-1]))
        layers = [*_linear(sizes), nn.Unflatten(1, (channels[-1], *sides[-1]))]
        outwards = list(pairwise(zip([sample_shape[0], *channels], sides, strict=True)))[::-1]
        for (fan_out, side), (fan_in, _) in outwards:
            even = (1 - side[0] % 2, 1 - side[1] % 2)  # one pixel more than 2 n - 1
            layers += [nn.ConvTranspose2d(fan_in, fan_out, 5, 2, 2, even), nn.ELU()]
        self.layers = nn.Sequential(*layers[:-1])  # the logits are unbounded

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out.reshape(len(z), *self.sample_shape)


class Adversary(nn.Module):
    """T(x, z): residual blocks on x beside z, and the sum of z squared.

    As in the authors' toy example. The square lets T follow -log p(z) far out, where an ELU network is only linear and
    an encoder would run away from the prior unseen. Of use with adaptive contrast too, where it has to be unlearned.
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        z_dim: int,
        width: Count = 256,
        blocks: Annotated[int, Ge(0)] = 5,
        channels: Counts = (),
    ) -> None:
        super().__init__()
        self.features = Features(sample_shape, channels)
        self.layers = nn.Sequential(
            nn.Linear(self.features.size + z_dim, width),
            nn.ELU(),
            *(Residual(width) for _ in range(blocks)),
            nn.Linear(width, 1),
        )

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([self.features(x), z], dim=1))
        return out.squeeze(1) + z.square().sum(1)


class Residual(nn.Module):
    """elu(h + W' relu(W h)); W' is zero at first, so that a deep T starts as a shallow one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        for weight in self.layers[2].parameters():
            nn.init.zeros_(weight)

    def forward(self, h: Tensor) -> Tensor:
        return elu(h + self.layers(h))
