"""The DCGAN pair: Radford, Metz & Chintala (2015), arXiv:1511.06434, figure 1, for any power-of-two size.

generator: (B, Z) -> (B, C, S, S)   critic: (B, C, S, S) -> (B,)   S = 8, 16, 32, 64 or 128

The generator starts from a 4x4 map and doubles it; the critic halves the image down to 4x4. `width` is the
number of channels next to the image (ngf and ndf in the authors' code: 64 at 64x64), doubled at each step
towards the 4x4 end.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from ..errors import UserError

SIZES = (8, 16, 32, 64, 128)

Width = Annotated[int, Ge(1)]
Norm = Literal["batch", "none"]


def _steps(sample_shape: Sequence[int]) -> tuple[int, int]:
    """(channels, how often 4x4 is doubled to reach the image)."""
    if len(sample_shape) != 3 or sample_shape[1] != sample_shape[2] or sample_shape[1] not in SIZES:
        shape = "x".join(map(str, sample_shape))
        sizes = ", ".join(map(str, SIZES))
        raise UserError(f"dcgan works on square images of size {sizes}; the data is {shape}")
    return sample_shape[0], (sample_shape[1] // 4).bit_length() - 1


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), as section 4 has it; batch-norm scales from N(1, 0.02), as the code has."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Generator(nn.Module):
    def __init__(
        self,
        z_dim: int,
        sample_shape: Sequence[int],
        width: Width = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, doublings = _steps(sample_shape)
        sizes = [width * 2**step for step in reversed(range(doublings))]
        bias = norm == "none"  # batch norm has a shift of its own
        layers: list[nn.Module] = [nn.ConvTranspose2d(z_dim, sizes[0], 4, 1, 0, bias=bias)]
        for fan_in, fan_out in zip(sizes, [*sizes[1:], None], strict=True):
            layers += [nn.BatchNorm2d(fan_in)] if norm == "batch" else []
            layers += [nn.ReLU(inplace=True)]
            last = fan_out is None
            layers += [nn.ConvTranspose2d(fan_in, channels if last else fan_out, 4, 2, 1, bias=bias or last)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(initialise)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z[:, :, None, None])
        return out


class Critic(nn.Module):
    def __init__(
        self,
        sample_shape: Sequence[int],
        width: Width = 64,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, halvings = _steps(sample_shape)
        sizes = [width * 2**step for step in range(halvings)]
        layers: list[nn.Module] = []
        for step, (fan_in, fan_out) in enumerate(zip([channels, *sizes], sizes, strict=False)):
            normed = norm == "batch" and step > 0  # none next to the image (section 3)
            layers += [nn.Conv2d(fan_in, fan_out, 4, 2, 1, bias=not normed)]
            layers += [nn.BatchNorm2d(fan_out)] if normed else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 4, 1, 0), nn.Flatten())
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.squeeze(1)
