"""Multi-layer perceptrons.   generator: (B, Z) -> (B, *X)   critic: (B, *X) -> (B,)"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

Widths = Sequence[Annotated[int, Ge(1)]]
Norm = Literal["none", "batch"]
Squash = Literal["tanh", "none"]


def _hidden(sizes: Sequence[int], norm: Norm, slope: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers.append(nn.Linear(fan_in, fan_out))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(fan_out))
        layers.append(nn.LeakyReLU(slope))
    return layers


class Generator(nn.Module):
    """Linear, norm, leaky ReLU for each width; then a linear map onto X; tanh for images, none for points."""

    def __init__(
        self,
        z_dim: int,
        sample_shape: Sequence[int],
        widths: Widths = (256, 256),
        norm: Norm = "none",
        output: Squash | None = None,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.sample_shape = tuple(sample_shape)
        squash = output or ("tanh" if len(self.sample_shape) == 3 else "none")
        self.layers = nn.Sequential(
            *_hidden([z_dim, *widths], norm, slope),
            nn.Linear([z_dim, *widths][-1], math.prod(self.sample_shape)),
            nn.Tanh() if squash == "tanh" else nn.Identity(),
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out.reshape(len(z), *self.sample_shape)


class Critic(nn.Module):
    """Linear, leaky ReLU for each width; then one unbounded number: a logit, or a potential.

    No normalisation over the batch: the losses are written for a critic that judges each sample alone.
    """

    def __init__(self, sample_shape: Sequence[int], widths: Widths = (256, 256), slope: float = 0.2) -> None:
        super().__init__()
        sizes = [math.prod(sample_shape), *widths]
        self.layers = nn.Sequential(nn.Flatten(), *_hidden(sizes, "none", slope), nn.Linear(sizes[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.squeeze(1)
