"""The pairs with labels y (B,) in 0..classes-1 as a further input: Mirza & Osindero (2014), arXiv:1411.1784.

generator: (B, Z), (B,) -> (B, *X)   critic: (B, *X), (B,) -> (B,)

y enters one-hot: beside z in the generators, beside the pixels in the MLP critic, and as constant maps beside
the channels in the DCGAN critic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from . import dcgan, mlp


class _Generator(nn.Module):
    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.network(torch.cat([z, one_hot(y, self.classes).to(z.dtype)], dim=1))
        return out


class MLPGenerator(_Generator):
    def __init__(
        self,
        z_dim: int,
        sample_shape: Sequence[int],
        classes: int,
        widths: mlp.Widths = (256, 256),
        norm: mlp.Norm = "none",
        output: mlp.Squash | None = None,
        slope: float = 0.0,
    ) -> None:
        super().__init__(mlp.Generator(z_dim + classes, sample_shape, widths, norm, output, slope), classes)


class DCGANGenerator(_Generator):
    def __init__(
        self, z_dim: int, sample_shape: Sequence[int], classes: int, width: dcgan.Width = 64, norm: dcgan.Norm = "batch"
    ) -> None:
        super().__init__(dcgan.Generator(z_dim + classes, sample_shape, width, norm), classes)


class MLPCritic(nn.Module):
    def __init__(
        self, sample_shape: Sequence[int], classes: int, widths: mlp.Widths = (256, 256), slope: float = 0.2
    ) -> None:
        super().__init__()
        self.network = mlp.Critic([torch.Size(sample_shape).numel() + classes], widths, slope)
        self.classes = classes

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.network(torch.cat([x.flatten(1), one_hot(y, self.classes).to(x.dtype)], dim=1))
        return out


class DCGANCritic(nn.Module):
    def __init__(
        self, sample_shape: Sequence[int], classes: int, width: dcgan.Width = 64, norm: dcgan.Norm = "batch"
    ) -> None:
        super().__init__()
        channels, *sides = sample_shape
        self.network = dcgan.Critic([channels + classes, *sides], width, norm)
        self.classes = classes

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        maps = one_hot(y, self.classes).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        out: Tensor = self.network(torch.cat([x, maps], dim=1))
        return out
