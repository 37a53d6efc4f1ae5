"""The pipelines at a user's size, on made-up data of the right format: planned, and trained for three rounds.

    python benchmarks/real_size.py [PIPELINE ...]

What is real: the pipelines' networks, batch sizes and image sizes, the code that reads the files, and Inception where
scores use it. What is made up: noise for images, the checksums of CIFAR-10's files, Inception's weights, and 3 rounds.
Each pipeline runs in a process of its own; memory is the peak of that process, data and scores included.
"""

import argparse
import gzip
import hashlib
import json
import multiprocessing
import pickle
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.workflows.memory import peak_megabytes
from saddlepoint.workflows.plan import plan

ROUNDS = 3


def mnist(folder: Path, rng: np.random.Generator) -> None:
    """600 training and 300 test images in MNIST's own format."""

    def idx(values: np.ndarray) -> bytes:
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        return gzip.compress(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())

    from torchvision.datasets import MNIST

    (raw := folder / "MNIST" / "raw").mkdir(parents=True)
    sums = []
    for half, n in (("train", 600), ("t10k", 300)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(n, dtype=np.uint8) % 10)):
            name, content = f"{half}-{kind}-ubyte.gz", idx(values)
            (raw / name).write_bytes(content)
            sums.append((name, hashlib.md5(content).hexdigest()))
    MNIST.resources = sums


def cifar10(folder: Path, rng: np.random.Generator) -> None:
    """300 images in each of CIFAR-10's batches, whose checksums torchvision is told."""
    from torchvision.datasets import CIFAR10

    (batches := folder / "cifar-10-batches-py").mkdir(parents=True)
    sums = []
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        levels = rng.integers(0, 256, (300, 3 * 32 * 32), dtype=np.uint8)
        content = pickle.dumps({"data": levels, "labels": [row % 10 for row in range(300)]})
        (batches / name).write_bytes(content)
        sums.append([name, hashlib.md5(content).hexdigest()])
    names = pickle.dumps({"label_names": list("abcdefghij")})
    (batches / "batches.meta").write_bytes(names)
    CIFAR10.train_list, CIFAR10.test_list = sums[:5], sums[5:]
    CIFAR10.meta = {**CIFAR10.meta, "md5": hashlib.md5(names).hexdigest()}


def horse2zebra(folder: Path, rng: np.random.Generator) -> None:
    """Four images of 256x256 on each side and half."""
    for side in ("trainA", "trainB", "testA", "testB"):
        (folder / side).mkdir(parents=True)
        for number in range(4):
            levels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(levels).save(folder / side / f"{number}.jpg")


def inception(path: Path) -> None:
    """A file of Inception weights, drawn at random."""
    import torch_fidelity.feature_extractor_inceptionv3 as library

    kind = library.FeatureExtractorInceptionV3
    with (
        patch.object(library, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(kind, "load_state_dict", lambda self, state: None),
    ):
        torch.save(kind("inception", ["2048"]).state_dict(), path)


@dataclass(frozen=True)
class Case:
    data: Callable[[Path, np.random.Generator], None]
    place: str  # the option that says where the data lie
    overrides: tuple[str, ...] = ()
    inception: bool = False


FEW = ("objective.metric=kid", "objective.samples=4")  # FID on Inception needs more than 2048 images
CASES: Mapping[str, Case] = {
    "mnist-wgan": Case(mnist, "data.root"),
    "cifar10-gan": Case(cifar10, "data.root", FEW, inception=True),
    "horse2zebra-cyclegan": Case(horse2zebra, "data.path", FEW, inception=True),
    "mnist-avb": Case(mnist, "data.root", ("objective.samples=16",)),
}


def measure(name: str, *more: str) -> dict[str, Any]:
    """Plans a pipeline and trains it for three rounds, in this process."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        case.data(Path(folder) / "data", np.random.default_rng(0))
        short = [f"training.rounds={ROUNDS}", f"training.evaluate_every={ROUNDS}", "training.checkpoint_every=null"]
        changes = [f"{case.place}={folder}/data", *short, f"search.min_rounds={ROUNDS}", "training.device=cpu"]
        changes += ["resources.gpus=0", "resources.cpus=1", *case.overrides, *more]
        if case.inception:
            inception(Path(folder) / "inception.pth")
            changes.append(f"objective.feature_weights={folder}/inception.pth")
        pipeline = Pipeline.load(name, changes)
        planned = plan(pipeline)
        start = time.perf_counter()
        *_, final = train(pipeline, seed=0, folder=Path(folder) / "run")
    return {
        "weights": planned.parameters,
        "data": planned.data,
        "batch": pipeline.training.batch_size,
        "round_seconds": planned.round_milliseconds / 1e3,
        "train_seconds": time.perf_counter() - start,
        "rounds": final.round,
        "metrics": final.metrics,
        "memory_megabytes": peak_megabytes(torch.device("cpu")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", choices=[*CASES, []])
    table = Table(title=f"Three rounds at a user's size, one thread, {platform.processor() or platform.machine()}")
    columns = ("pipeline", "data", "weights", "batch", "s a round", "s for 3 rounds and scores", "peak MB")
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:3] else "right")
    for name in parser.parse_args().pipelines or CASES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            row = alone.submit(measure, name).result()
        weights = ", ".join(f"{net} {n / 1e6:.2f} M" for net, n in row["weights"].items())
        numbers = f"{row['round_seconds']:.2f}", f"{row['train_seconds']:.0f}", f"{row['memory_megabytes']:,.0f}"
        table.add_row(name, row["data"], weights, str(row["batch"]), *numbers)
        print(json.dumps({name: row}), flush=True)  # the table comes when all are done
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
