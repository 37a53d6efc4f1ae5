"""Options for speed: what each changes, and that nothing else does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.training.speed import PLAIN, Speed, flat, shaped
from saddlepoint.training.state import Training

Small = Callable[..., Pipeline]


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (6, 3, 2, 2)])
@pytest.mark.parametrize("last", [False, True])
def test_a_tensor_flattened_in_its_own_order_comes_back_as_a_view(shape: tuple[int, ...], last: bool) -> None:
    tensor = images(*shape)
    if last and len(shape) == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    whole = flat(tensor, tensor)
    assert torch.equal(whole, tensor.as_strided((tensor.numel(),), (1,)))  # the order in memory
    back = shaped(whole, tensor)
    assert torch.equal(back, tensor)
    assert back.stride() == tensor.stride()
    assert back.data_ptr() == whole.data_ptr()


def test_channels_last_weights_are_stepped_as_any_others(game_in_small: Small, tmp_path: Path) -> None:
    """Adam's step of a weight does not depend on where the weight lies."""
    found = {}
    for last in (False, True):
        pipeline = game_in_small("cyclegan", {"training.channels_last": last})
        training = Training(pipeline, 0, tmp_path, setup(pipeline))
        training.play()
        found[last] = {name: net.state_dict() for name, net in training.plain.networks.items()}
    convolution = training.plain.networks["D_X"]
    assert any(
        w.dim() == 4 and w.shape[1] > 1 and w.is_contiguous(memory_format=torch.channels_last)
        for w in convolution.parameters()
    )
    for name, weights in found[False].items():
        for key, weight in weights.items():
            torch.testing.assert_close(found[True][name][key], weight, rtol=1e-4, atol=1e-6)


class Seen(nn.Module):
    """Remembers in which precision it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.computed: torch.dtype | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layer(x)
        self.computed = out.dtype
        return out, out


def test_in_bfloat16_networks_compute_and_nothing_else_does() -> None:
    network = Seen()
    x = images(4, 3)
    first, second = Speed(precision="bfloat16").called(network)(x)
    assert network.computed is torch.bfloat16
    assert first.dtype is second.dtype is torch.float32  # losses are of float32
    (gradient,) = torch.autograd.grad(first.sum(), [network.layer.weight])
    assert gradient.dtype is torch.float32
    assert network.layer.weight.dtype is torch.float32
    assert 0 < float((first - network.layer(x)).abs().max().detach()) < 0.05  # 8 bits of mantissa
    PLAIN.called(network)(x)
    assert network.computed is torch.float32


def test_without_options_a_loss_calls_the_network_itself() -> None:
    network = Seen()
    assert PLAIN.called(network) is network
    assert PLAIN.laid_out(network) is network


def test_tf32_is_used_where_it_is_asked_for_and_nowhere_else() -> None:
    for speed, used in ((Speed(precision="tf32"), True), (PLAIN, False)):
        speed.settle()
        assert torch.backends.cuda.matmul.allow_tf32 is used
        assert torch.backends.cudnn.allow_tf32 is used
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # as who needs exact features does
            assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.precision": "half"}, "training.precision: 'half' should be 'float32', 'tf32' or 'bfloat16'"),
        ({"training.compile": True}, "training.compile: True should be 'none', 'default' or 'cuda_graphs'"),
        (
            {"training.accumulate": 5},
            "training.batch_size: 32 should be a multiple of 5, which is resources.workers, 1, times "
            "training.accumulate, 5",
        ),
    ],
)
def test_options_that_cannot_be(
    changes: dict[str, object], message: str, toy: Callable[..., Pipeline], refusal: Callable[..., str]
) -> None:
    assert refusal(lambda: toy(changes)) == message


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            {"workers": 3},
            "training.batch_size: 32 should be a multiple of 3, which is resources.workers, 3, times "
            "training.accumulate, 1",
        ),
        (
            {"workers": 2, "gpus": 1},
            "resources.gpus: 1 is for trials on one worker; with 2 workers give resources.gpus_per_worker, "
            "and unset it: resources.gpus=0",
        ),
        (
            {"gpus": 0.5, "gpus_per_worker": 0.5},
            "resources.gpus: 0.5 and gpus_per_worker: 0.5 say the same thing; give one of them, "
            "and unset the other: gpus=0 or gpus_per_worker=null",
        ),
        (
            {"workers": 2, "gpus_per_worker": 0.5},
            "resources.gpus_per_worker: 0.5 should be a whole number: two workers of one training cannot talk to each "
            "other from the same GPU",
        ),
        ({"gpus": 1.5}, "resources.gpus: 1.5 should be a part of one GPU, or a whole number of them"),
    ],
)
def test_resources_that_do_not_go_together(
    resources: dict[str, object],
    message: str,
    changed: Callable[..., dict[str, object]],
    refusal: Callable[..., str],
) -> None:
    assert refusal(lambda: Pipeline.parse(changed("resources", resources))) == message


def test_several_workers_are_not_sent_to_one_gpu(
    changed: Callable[..., dict[str, object]], refusal: Callable[..., str]
) -> None:
    content = changed("resources", {"workers": 2})
    content["training"] = {**content["training"], "device": "cuda:1"}  # type: ignore[dict-item]
    assert refusal(lambda: Pipeline.parse(content)) == (
        "training.device: 'cuda:1' is one GPU, and resources.workers is 2; give cuda, and each worker has its own"
    )


def test_how_many_gpus_a_trial_takes(changed: Callable[..., dict[str, object]]) -> None:
    def of(**resources: float) -> tuple[float, float]:
        needs = Pipeline.parse({**changed("resources", resources), "search": None}).resources
        return needs.gpus_each, needs.gpus_of_trial

    assert of() == (0, 0)
    assert of(gpus=0.25) == (0.25, 0.25)
    assert of(workers=4, gpus_per_worker=2) == (2, 8)


@pytest.mark.parametrize("mode", ["default", "cuda_graphs"])
def test_what_is_compiled_is_what_the_losses_call(
    mode: str, toy: Callable[..., Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's part is played by spies: the real compiler takes a minute, and CUDA graphs a GPU."""
    compiled, calls, moves = [], [], []

    def compile_(network: nn.Module, **options: object) -> Callable[..., object]:
        compiled.append(options)

        def call(*inputs: Tensor) -> object:
            calls.append(network)
            return network(*inputs)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: moves.append(1))
    pipeline = toy({"training.compile": mode})
    training = Training(pipeline, 0, tmp_path, setup(pipeline))
    training.play()
    right = {"default": "default", "cuda_graphs": "reduce-overhead"}[mode]
    assert [options["mode"] for options in compiled] == [right, right]
    assert training.game.order == (("critic",), ("critic",), ("generator",))
    assert len(calls) == 2 * 3 + 2  # the critic of data, and of samples; at the end of samples alone
    assert len(moves) == (3 if mode == "cuda_graphs" else 0)


def test_a_warm_worker_goes_on_compiling_after_many_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own limit is eight for each piece of code: the ninth structure would run uncompiled, and nobody told."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: real(network, backend="eager", dynamic=False))
    speed = Speed(compile="default")
    speed.settle()
    for width in range(1, 13):
        before = counters["stats"]["unique_graphs"]
        speed.called(nn.Sequential(nn.Linear(3, width), nn.ReLU()))(torch.ones(2, 3))
        assert counters["stats"]["unique_graphs"] > before, width


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("training.batch_size", {"training.accumulate": 2}),
        ("training.batch_size", {"resources": {"workers": 2}}),
        ("training.accumulate", {}),
    ],
)
def test_a_range_with_batches_that_have_no_parts_is_refused_before_a_trial_meets_one(
    name: str, changes: dict[str, object], changed: Callable[..., dict[str, object]], refusal: Callable[..., str]
) -> None:
    """Both of its ends are right: 32 and 64, or 1 and 4."""
    low, high = (32, 64) if name == "training.batch_size" else (1, 4)
    space = {"game": "wgan", "parameters": {name: {"type": "int", "low": low, "high": high, "default": low}}}
    content = changed("search", {"space": space, "trials": 2})
    for key, value in changes.items():
        section, _, leaf = key.partition(".")
        content[section] = {**content.get(section, {}), **({leaf: value} if leaf else value)}
    assert refusal(lambda: Pipeline.parse(content)) == (
        f"search.space.parameters.{name}: a range holds batches that do not divide into parts "
        "(resources.workers times training.accumulate); give choices"
    )
