"""The translator and the discriminator of patches: the paper's layers, what a patch is, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlepoint import networks
from saddlepoint.errors import UserError
from saddlepoint.networks.resnet import Block

DIGITS: dict[str, dict[str, Any]] = {
    "resnet_generator": {"width": 32, "halvings": 0, "blocks": 2, "kernel": 3},
    "patchgan_discriminator": {"widths": [32, 64], "strides": [2, 2], "head": 2, "norm": "none"},
}


def built(factory: str, shape: tuple[int, ...], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    arguments = networks.with_facts(factory, options, {"sample_shape": list(shape)}, "networks.net")
    return networks.build(factory, arguments, "networks.net")


def size(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def convolutions(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize(("side", "blocks"), [(128, 6), (252, 6), (256, 9), (512, 9)])
def test_the_generator_is_the_papers(side: int, blocks: int) -> None:
    """Appendix 7.2: c7s1-64, d128, d256, R256 six or nine times, u128, u64, c7s1-3."""
    generator = built("resnet_generator", (3, side, side))
    first, *between, last = convolutions(generator)
    widths = [128, 256, *[256] * 2 * blocks, 128, 64]
    assert [layer.out_channels for layer in (first, *between, last)] == [64, *widths, 3]
    assert [layer.kernel_size[0] for layer in (first, *between, last)] == [7, *[3] * len(between), 7]
    assert [layer.stride[0] for layer in between] == [2, 2, *[1] * 2 * blocks, 2, 2]
    assert [type(layer) for layer in between[-2:]] == [nn.ConvTranspose2d] * 2
    reflecting = [layer.padding_mode == "reflect" for layer in (first, *between, last)]
    assert reflecting == [True, False, False, *[True] * 2 * blocks, False, False, True]
    assert sum(isinstance(m, nn.InstanceNorm2d) for m in generator.modules()) == 1 + len(between)
    # the authors' code prints 11.378 M at nine blocks; each convolution in front of a norm has a bias there
    theirs = 11_378_179 - (9 - blocks) * 2 * (256 * 256 * 9 + 256)
    assert size(generator) == theirs - sum(layer.out_channels for layer in (first, *between))


def test_the_discriminator_is_the_papers() -> None:
    """C64-C128-C256-C512 and one number a patch; the authors' code prints 2.765 M, biases at the norms included."""
    discriminator = built("patchgan_discriminator", (3, 256, 256))
    layers = convolutions(discriminator)
    assert [layer.out_channels for layer in layers] == [64, 128, 256, 512, 1]
    assert [layer.kernel_size for layer in layers] == [(4, 4)] * 5
    assert [layer.stride[0] for layer in layers] == [2, 2, 2, 1, 1]
    assert [layer.bias is not None for layer in layers] == [True, False, False, False, True]
    assert [m.num_features for m in discriminator.modules() if isinstance(m, nn.InstanceNorm2d)] == [128, 256, 512]
    assert size(discriminator) == 2_764_737 - 128 - 256 - 512
    assert discriminator(torch.zeros(1, 3, 256, 256)).shape == (1, 30, 30)


def seen_by(discriminator: nn.Module, side: int, row: int, column: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that one number of the map depends on; together they must be a whole square."""
    image = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator.double()(image)[0, row, column], image)
    touched = gradient[0, 0] != 0
    rows, columns = touched.any(dim=1).nonzero().flatten(), touched.any(dim=0).nonzero().flatten()
    assert touched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def test_a_patch_is_70x70_and_the_next_lies_8_further() -> None:
    # without norms, whose means and variances see the whole image
    discriminator = built("patchgan_discriminator", (1, 256, 256), widths=[2, 2, 2, 2], norm="none")
    rows, columns = seen_by(discriminator, 256, 14, 15)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (70, 70)
    further, _ = seen_by(discriminator, 256, 15, 15)
    assert further.start - rows.start == 8
    assert columns.start - rows.start == 8


def test_at_the_size_of_digits_the_patch_is_the_image() -> None:
    discriminator = built("patchgan_discriminator", (1, 8, 8), **DIGITS["patchgan_discriminator"])
    assert [layer.out_channels for layer in convolutions(discriminator)] == [32, 64, 1]
    assert discriminator(torch.zeros(5, 1, 8, 8)).shape == (5, 1, 1)
    assert seen_by(discriminator, 8, 0, 0) == (slice(0, 8), slice(0, 8))


def test_the_generator_of_digits_keeps_the_size_throughout() -> None:
    generator = built("resnet_generator", (1, 8, 8), **DIGITS["resnet_generator"])
    layers = convolutions(generator)
    assert [layer.out_channels for layer in layers] == [32, 32, 32, 32, 32, 1]
    assert {(layer.kernel_size, layer.stride, layer.padding_mode) for layer in layers} == {((3, 3), (1, 1), "reflect")}


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 32, 32), {"width": 2, "blocks": 1}),
        ((1, 8, 8), {"width": 2, "blocks": 1}),  # the smallest at two halvings
        ((2, 12, 20), {"width": 3, "halvings": 1, "blocks": 0, "kernel": 5}),
        ((1, 4, 4), {"width": 2, "halvings": 0, "blocks": 2, "kernel": 7}),
        ((1, 8, 8), DIGITS["resnet_generator"]),
    ],
)
def test_images_keep_their_shape_and_range(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    generator = built("resnet_generator", shape, **options)
    for weight in generator.parameters():
        weight.data *= 20
    translated = generator(torch.randn(3, *shape))
    assert translated.shape == (3, *shape)
    assert 0.9 < float(translated.detach().abs().max()) <= 1


@pytest.mark.parametrize("factory", list(DIGITS))
def test_an_image_is_taken_by_itself_in_training_as_in_use(factory: str) -> None:
    network = built(factory, (1, 8, 8), **(DIGITS[factory] | ({"norm": "instance"} if "patch" in factory else {})))
    x = torch.randn(6, 1, 8, 8)
    together = network.train()(x)
    alone = torch.cat([network.eval()(x[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}  # no running statistics


def test_a_block_adds_to_its_input_without_a_last_relu() -> None:
    torch.manual_seed(0)
    block, x = Block(3), torch.randn(2, 3, 8, 8)
    added: Tensor = block.layers(x)
    assert torch.equal(block(x), x + added)
    assert bool((added < 0).any())
    torch.testing.assert_close(added.mean(dim=(2, 3)), torch.zeros(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(added.var(dim=(2, 3), correction=0), torch.ones(2, 3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("factory", list(DIGITS))
def test_weights_are_drawn_from_a_normal_of_0_02_and_biases_are_0(factory: str) -> None:
    network = built(factory, (3, 64, 64))
    weights = torch.cat([layer.weight.detach().flatten() for layer in convolutions(network)])
    assert float(weights.mean()) == pytest.approx(0, abs=5e-5)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    biases = [layer.bias for layer in convolutions(network) if layer.bias is not None]
    assert biases
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize(
    ("factory", "shape", "options", "message"),
    [
        ("resnet_generator", (2,), {}, "resnet_generator works on images; the data is 2"),
        ("resnet_generator", (3, 30, 32), {}, "halvings: 2 needs sides that 4 divides; the data is 3x30x32"),
        (
            "resnet_generator",
            (1, 4, 4),
            {},
            "halvings: 2 and kernel 7 need sides of at least 8; the data is 1x4x4",
        ),
        ("resnet_generator", (1, 8, 8), {"kernel": 4}, "kernel: 4 cannot keep the size of an image; it must be odd"),
        ("patchgan_discriminator", (2,), {}, "patchgan works on images; the data is 2"),
        (
            "patchgan_discriminator",
            (1, 8, 8),
            {},
            "strides: [2, 2, 2, 1] leave nothing of images of 1x8x8 to judge; take fewer or smaller",
        ),
        (
            "patchgan_discriminator",
            (1, 32, 32),
            {"widths": [4, 8]},
            "strides: [2, 2, 2, 1] must hold one number for each of widths, [4, 8]",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    factory: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        built(factory, shape, **options)
    assert str(error.value) == f"networks.net: {message}"


@pytest.mark.parametrize("side", range(4, 40))
def test_a_discriminator_that_is_built_also_runs(side: int) -> None:
    """And the other way round: what is refused could not have run."""
    for strides, head in (([2, 2, 2, 1], 4), ([2, 2], 2), ([2], 4), ([1], 3)):
        widths = [2] * len(strides)
        options = {"widths": widths, "strides": strides, "head": head, "norm": "none"}
        try:
            network = built("patchgan_discriminator", (1, side, side), **options)
        except UserError:
            raw = built("patchgan_discriminator", (1, 64, 64), **options)
            with pytest.raises(RuntimeError):
                raw(torch.zeros(1, 1, side, side))
        else:
            assert network(torch.zeros(2, 1, side, side)).shape[0] == 2
