"""PatchGAN: a discriminator that judges overlapping patches, each by itself.

discriminator: (B, C, H, W) -> (B, H', W'), one number for each patch

Isola et al. (2017), arXiv:1611.07004, section 3.2; the 70x70 one of Zhu et al. (2017), arXiv:1703.10593, appendix 7.2,
is C64-C128-C256-C512 and a last convolution: 4x4 all, the first three of stride 2, instance norm in all but the first
and the last, leaky ReLU of slope 0.2. Losses take the mean over all patches.

At the size of digits: widths [32, 64], strides [2, 2], head 2, norm none; one patch that is the whole 8x8 image.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from ..errors import UserError
from .resnet import initialise

KERNEL, PADDING = 4, 1

Count = Annotated[int, Ge(1)]


class Discriminator(nn.Module):
    """`widths` and `strides` of the 4x4 convolutions; `head`: the kernel of the last one, which gives the numbers."""

    def __init__(
        self,
        sample_shape: Sequence[int],
        widths: Sequence[Count] = (64, 128, 256, 512),
        strides: Sequence[Count] = (2, 2, 2, 1),
        head: Count = KERNEL,
        norm: Literal["instance", "none"] = "instance",
    ) -> None:
        super().__init__()
        if len(sample_shape) != 3:
            raise UserError(f"patchgan works on images; the data is {'x'.join(map(str, sample_shape))}")
        if len(widths) != len(strides) or not widths:
            raise UserError(f"strides: {list(strides)} must hold one number for each of widths, {list(widths)}")
        _check_sides(sample_shape, strides, head)
        layers: list[nn.Module] = []
        for layer, (fan_in, fan_out) in enumerate(zip([sample_shape[0], *widths], widths, strict=False)):
            with_norm = norm == "instance" and layer > 0  # which would take a bias away
            layers += [nn.Conv2d(fan_in, fan_out, KERNEL, strides[layer], PADDING, bias=not with_norm)]
            layers += [nn.InstanceNorm2d(fan_out)] if with_norm else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, head, padding=(head - 1) // 2))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.squeeze(1)


def _check_sides(sample_shape: Sequence[int], strides: Sequence[int], head: int) -> None:
    side = min(sample_shape[1:])
    for stride in strides:
        side = (side + 2 * PADDING - KERNEL) // stride + 1
    if side + 2 * ((head - 1) // 2) < head:
        shape = "x".join(map(str, sample_shape))
        raise UserError(f"strides: {list(strides)} leave nothing of images of {shape} to judge; take fewer or smaller")
