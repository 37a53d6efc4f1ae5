"""What many tests share: one thread, for bits depend on their number, and a pipeline that trains at once."""

import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from saddlepoint.errors import UserError
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import Setup, setup

# A shell lets what it starts in the background ignore Ctrl-C, and with it all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOY: dict[str, Any] = {
    "name": "toy",
    "data": {"name": "ring", "std": 0.05, "train": 500, "heldout": 300},
    "game": {
        "name": "wgan",
        "structure": {"z_dim": 4, "n_critic": 2},
        "hyperparameters": {"lr_critic": 2e-3, "lr_generator": 2e-3, "clip": 0.1},
    },
    "networks": {
        "generator": {"factory": "mlp_generator", "widths": [16], "norm": "batch"},
        "critic": {"factory": "mlp_critic", "widths": [16]},
    },
    "training": {
        "rounds": 12,
        "batch_size": 32,
        "ema": 0.9,
        "evaluate_every": 4,
        "log_every": 3,
        "device": "cpu",
    },
    "objective": {"metric": "emd", "samples": 100},
}
SEARCH: dict[str, Any] = {
    "space": {
        "game": "wgan",
        "parameters": {
            "clip": {"type": "log_float", "low": 0.01, "high": 0.2, "default": 0.1},
            "n_critic": {"type": "choice", "choices": [1, 2], "default": 2},
            "training.batch_size": {"type": "int", "low": 16, "high": 64, "default": 32},
        },
    },
    "trials": 5,
}

ADVERSARIES = {  # networks small enough to count
    "gan": {"generator": "mlp_generator", "discriminator": "mlp_critic"},
    "wgan": {"generator": "mlp_generator", "critic": "mlp_critic"},
    "cgan": {"generator": "conditional_mlp_generator", "discriminator": "conditional_mlp_critic"},
    "cwgan": {"generator": "conditional_mlp_generator", "critic": "conditional_mlp_critic"},
    "lsgan:game": {"generator": "mlp_generator", "discriminator": "mlp_critic"},
}
RING = {"name": "ring", "std": 0.05, "train": 500, "heldout": 300}
GAMES_IN_SMALL: dict[str, dict[str, Any]] = {
    name: {
        "data": {"name": "digits"} if "conditional_mlp_generator" in nets.values() else RING,
        "networks": {net: {"factory": factory, "widths": [16]} for net, factory in nets.items()},
        "game": {"name": name, "structure": {"z_dim": 4}},
        "objective": {"metric": "emd", "samples": 64},
    }
    for name, nets in ADVERSARIES.items()
}
SMALL_RESNET = {"factory": "resnet_generator", "width": 4, "halvings": 0, "blocks": 1, "kernel": 3}
SMALL_PATCHES = {"factory": "patchgan_discriminator", "widths": [4], "strides": [2], "head": 2}
GAMES_IN_SMALL["cyclegan"] = {
    "data": {"name": "digits_pairs", "task": "invert"},
    "networks": {"G": SMALL_RESNET, "F": SMALL_RESNET, "D_X": SMALL_PATCHES, "D_Y": SMALL_PATCHES},
    "game": {"name": "cyclegan", "structure": {"pool": 40}},
    "objective": {"metric": "cycle_l1", "samples": 64, "features": "pixels"},
}

DECODER = {"factory": "bernoulli_decoder", "widths": [8]}
GAMES_IN_SMALL["vae"] = {
    "data": {"name": "four_points", "train": 64, "heldout": 64},
    "networks": {"encoder": {"factory": "gaussian_encoder", "widths": [8]}, "decoder": DECODER},
    "game": {"name": "vae", "structure": {"z_dim": 2}},
    "objective": {"metric": "reconstruction", "samples": 64, "features": "pixels"},
}
GAMES_IN_SMALL["avb"] = GAMES_IN_SMALL["vae"] | {
    "networks": {
        "encoder": {"factory": "noise_encoder", "widths": [8]},
        "decoder": DECODER,
        "adversary": {"factory": "adversary", "width": 8, "blocks": 1},
    },
    "game": {"name": "avb", "structure": {"z_dim": 2, "eps_dim": 3}},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def toy_content() -> dict[str, Any]:
    """The toy pipeline with a search, as plain data, to be changed at will."""
    return deepcopy(TOY | {"search": SEARCH})


@pytest.fixture
def changed(toy_content: dict[str, Any]) -> Callable[[str, Any], dict[str, Any]]:
    """`changed("training/rounds", 3)`: the toy pipeline's content with one value another; None removes it."""

    def change(path: str, value: Any) -> dict[str, Any]:
        content, (*way, last) = deepcopy(toy_content), path.split("/")
        node = content
        for part in way:
            node = node.setdefault(part, {})
        if value is None:
            del node[last]
        else:
            node[last] = value
        return content

    return change


@pytest.fixture(scope="session")
def refusal() -> Callable[[Callable[[], object]], str]:
    """`refusal(lambda: ...)`: what is said to the user, in one line, whose input is refused."""

    def said(build: Callable[[], object]) -> str:
        with pytest.raises(UserError) as error:
            build()
        assert "\n" not in str(error.value)
        return str(error.value)

    return said


@pytest.fixture(scope="session")
def toy() -> Callable[..., Pipeline]:
    """A WGAN on a small ring, with batch norm and moving average; `toy({"training.rounds": 6})` varies it."""

    def build(values: dict[str, Any] | None = None) -> Pipeline:
        return Pipeline.parse(TOY).with_values(values or {})

    return build


@pytest.fixture(scope="session")
def toy_setup(toy: Callable[..., Pipeline]) -> Setup:
    return setup(toy())


@pytest.fixture(scope="session")
def digits() -> Pipeline:
    """The shipped pipeline, on the CPU."""
    return Pipeline.load("digits-wgan", ["training.device=cpu"])


@pytest.fixture(scope="session")
def digits_setup(digits: Pipeline) -> Setup:
    """Data and score of the digits; if the classifier is not in the cache yet, it is trained (some 10 s)."""
    return setup(digits)


@pytest.fixture(scope="session")
def _games_of_the_docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The game that docs/own_game.md builds, as a module `lsgan` that can be imported."""
    page = (Path(__file__).parents[1] / "docs" / "own_game.md").read_text()
    folder = tmp_path_factory.mktemp("own game")
    (folder / "lsgan.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("lsgan", None)


@pytest.fixture(scope="session")
def game_in_small(_games_of_the_docs: None) -> Callable[..., Pipeline]:
    """`game_in_small("avb", {"lr": 0.1})`: each game, one's own included, on data and networks that train at once."""

    def build(name: str, values: dict[str, Any] | None = None) -> Pipeline:
        training = {"rounds": 6, "batch_size": 32, "ema": 0.5, "evaluate_every": 3, "log_every": 2, "device": "cpu"}
        content = {"name": "small", "training": training, **GAMES_IN_SMALL[name]}
        return Pipeline.parse(content).with_values(values or {})

    return build


@pytest.fixture(scope="session")
def benchmark() -> Callable[..., ModuleType]:
    """`benchmark("cluster", "nodes")`: a module of a program in benchmarks/, which is a folder and no package; without
    a name of a module, the program itself."""

    def load(folder: str, module: str | None = None) -> ModuleType:
        place = Path(__file__).parents[1] / "benchmarks" / folder
        sys.path.insert(0, str(place))
        try:
            if module is not None:
                return import_module(module)
            spec = spec_from_file_location(f"{folder}_program", place / "__main__.py")
            assert spec is not None
            assert spec.loader is not None
            program = module_from_spec(spec)
            spec.loader.exec_module(program)
            return program
        finally:
            sys.path.remove(str(place))

    return load


@pytest.fixture(scope="session")
def _s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # a second, for few tests

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(_s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket of an S3 server on loopback: its URI, for which all that is needed is set."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
