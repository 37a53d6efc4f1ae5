"""The translator of CycleGAN: a convolutional net with residual blocks between its two halves.

generator: (B, C, H, W) -> (B, C, H, W) in [-1, 1]

Zhu et al. (2017), arXiv:1703.10593, appendix 7.2, after Johnson et al. (2016): c7s1-64, d128, d256, R256 nine times
(six times for images smaller than 256x256), u128, u64, c7s1-3. Padding reflects, except at the strided convolutions,
where it is zero as in the authors' code. Norms are instance norms without weights of their own, so an image is
translated in the same way whatever stands beside it in the batch; they would take away the bias of the convolution in
front of them, which therefore has none.

At the size of digits, where nothing is gained by going to coarser maps: width 32, halvings 0, blocks 2, kernel 3.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from ..errors import UserError

Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), as appendix 7.1 has it; biases 0, as the authors' code has them."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def same(fan_in: int, fan_out: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size, reflecting at the border."""
    return nn.Conv2d(fan_in, fan_out, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)


def normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]


class Block(nn.Module):
    """R: the input plus two 3x3 convolutions of it, without a ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        second = [same(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.layers = nn.Sequential(*normed(same(channels, channels, 3)), *second)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class Generator(nn.Module):
    """`width` channels next to the image, doubled at each of `halvings`; `kernel` of the first and the last layer."""

    def __init__(
        self,
        sample_shape: Sequence[int],
        width: Count = 64,
        halvings: Natural = 2,
        blocks: Natural | None = None,  # the paper's: 9 for images of 256x256 and more, 6 for smaller ones
        kernel: Count = 7,
    ) -> None:
        super().__init__()
        channels, side = _image(sample_shape, halvings, kernel)
        if blocks is None:
            blocks = 9 if side >= 256 else 6
        widths = [width * 2**step for step in range(halvings + 1)]
        layers = normed(same(channels, width, kernel))
        for fan_in, fan_out in pairwise(widths):
            layers += normed(nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False))
        layers += [Block(widths[-1]) for _ in range(blocks)]
        for fan_in, fan_out in pairwise(reversed(widths)):
            up = nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=1, bias=False)
            layers += normed(up)
        self.layers = nn.Sequential(*layers, same(width, channels, kernel, bias=True), nn.Tanh())
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def _image(sample_shape: Sequence[int], halvings: int, kernel: int) -> tuple[int, int]:
    """(channels, shorter side) of images that the layers can take."""
    shape = "x".join(map(str, sample_shape))
    if len(sample_shape) != 3:
        raise UserError(f"resnet_generator works on images; the data is {shape}")
    if kernel % 2 == 0:
        raise UserError(f"kernel: {kernel} cannot keep the size of an image; it must be odd")
    step, side = 2**halvings, min(sample_shape[1:])
    if any(size % step for size in sample_shape[1:]):
        raise UserError(f"halvings: {halvings} needs sides that {step} divides; the data is {shape}")
    if side <= kernel // 2 or side < 2 * step:  # a border cannot reflect more than there is behind it
        least = max(kernel // 2 + 1, 2 * step)
        raise UserError(f"halvings: {halvings} and kernel {kernel} need sides of at least {least}; the data is {shape}")
    return sample_shape[0], side
