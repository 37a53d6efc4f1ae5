"""Images per second and resident memory while a GAN trains on a Parquet set that is larger than its memory.

Writes 200 000 images (3x32x32, uint8, noise: nothing compresses) as shards into a temporary folder, loads them with
little memory, and trains a small GAN through one epoch, by the same loop as every other training. What counts is
that the memory does not grow from the first half of the epoch to the second.
"""

import argparse
import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from saddlepoint.data.parquet.columns import DType
from saddlepoint.data.parquet.writer import write_shards
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.training.setup import setup

SHAPE = (3, 32, 32)
HELD_OUT = 2_000
BATCH = 500
AIM = 1.05  # the most memory in the second half of the epoch over the most in the first


@dataclass(frozen=True)
class Noise:
    """What `write_shards` writes: row i is the same in every run."""

    rows: int
    seed: int
    shape: tuple[int, ...] = SHAPE
    dtype: DType = np.uint8
    labelled: bool = False

    def __len__(self) -> int:
        return self.rows

    def read(self, start: int, stop: int) -> tuple[Tensor, None]:
        rng = np.random.default_rng([self.seed, start])
        return torch.from_numpy(rng.integers(0, 256, (stop - start, *self.shape), dtype=np.uint8)), None


def pipeline(folder: Path, memory_mb: int, images: int, points: int) -> Pipeline:
    rounds = images // BATCH // 2  # the two moves of a round draw a batch each
    return Pipeline.parse(
        {
            "name": "stream",
            "data": {"name": "parquet", "path": str(folder), "memory_mb": memory_mb},
            "game": {"name": "gan", "structure": {"z_dim": 16}},
            "networks": {
                "generator": {"factory": "mlp_generator", "widths": [32]},
                "discriminator": {"factory": "mlp_critic", "widths": [32]},
            },
            "training": {
                "rounds": rounds,
                "batch_size": BATCH,
                "evaluate_every": max(1, rounds // points),
                "device": "cpu",
            },
            "objective": {"metric": "kid", "samples": 200, "features": "pixels"},
        }
    )


def resident_mb() -> float:
    """Now, where the system tells it, else at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--images", type=int, default=200_000)
    arguments.add_argument("--memory-mb", type=int, default=200)
    arguments.add_argument("--points", type=int, default=8, help="measurements, 2 or more")
    asked = arguments.parse_args()

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder, start = Path(temporary) / "noise", time.perf_counter()
        folder.mkdir()
        for name, half in (("train", Noise(asked.images, 0)), ("heldout", Noise(HELD_OUT, 1))):
            write_shards(folder, name, half, {"name": "noise"}, "array", 25_000, lambda rows: None)
        written = time.perf_counter() - start
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20

        spec = pipeline(folder, asked.memory_mb, asked.images, asked.points)
        pa.default_memory_pool().release_unused()
        before, start = resident_mb(), time.perf_counter()
        shared = setup(spec)
        loaded = time.perf_counter() - start

        table = Table(title="A GAN on a streamed Parquet set", title_justify="left", box=None, pad_edge=False)
        for column in ("images seen", "images/s", "resident MB"):
            table.add_column(column, justify="right")
        memory: list[float] = []
        seen, last = 0, 0.0
        for report in train(spec, seed=0, folder=Path(temporary) / "run", shared=shared):
            if report.final:
                break
            images, seconds = report.round * 2 * BATCH - seen, report.seconds - last
            seen, last = seen + images, report.seconds
            memory.append(resident_mb())
            table.add_row(f"{seen:,}", f"{images / seconds:,.0f}", f"{memory[-1]:.0f}")

    console.print(table)
    decoded = asked.images * 4 * np.prod(SHAPE) / 2**20
    middle = len(memory) // 2
    growth = max(memory[middle:]) / max(memory[:middle])
    notes = (
        f"{asked.images:,} images of {'x'.join(map(str, SHAPE))}: {size:.0f} MB as shards, {decoded:.0f} MB decoded;",
        f"memory_mb {asked.memory_mb}; written in {written:.0f} s, opened in {loaded:.1f} s.",
        f"Resident before it was opened: {before:.0f} MB. "
        f"The most in the second half of the epoch over the most in the first: {growth:.3f} (aim <= {AIM}).",
        f"Python {platform.python_version()}, torch {torch.__version__}, pyarrow {pa.__version__}, "
        f"{platform.machine()}, 1 thread.",
    )
    console.print(*notes, sep="\n", soft_wrap=True)
    if growth > AIM:
        raise SystemExit("the memory grows")


if __name__ == "__main__":
    main()
