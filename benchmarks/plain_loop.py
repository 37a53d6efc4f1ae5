"""Milliseconds of a WGAN round, 5 critic moves and 1 generator move: the plain way beside a plain loop.

The loop is what one finds in public (PyTorch-GAN, implementations/wgan/wgan.py, without its prints): a
shuffling DataLoader, a fresh z for each batch, `backward`, RMSprop, a clamp of each weight, the generator
every n_critic batches. Both play the pipeline digits-wgan: equal networks, equal weights at the start, equal
batch size, no evaluation, one thread. They take turns, and what counts is the processor's time, so that
whatever else the machine does falls on both and weighs little.
"""

import argparse
import copy
import cProfile
import math
import platform
import pstats
import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop
from torch.utils.data import DataLoader, TensorDataset

from saddlepoint.errors import SaddleError
from saddlepoint.randomness import stream
from saddlepoint.spec import Pipeline
from saddlepoint.training.batches import Batches
from saddlepoint.training.plain import Plain
from saddlepoint.training.setup import build_game, build_networks, setup

AIM = 1.3  # the plain loop's milliseconds over ours
WARM = 10  # rounds: first steps allocate

Networks = Mapping[str, nn.Module]


class Way(Protocol):
    optimizers: Mapping[str, Optimizer]

    def round(self) -> dict[str, Tensor]:
        """Plays one round; the losses of its last moves, `loss_critic` and `loss_generator` among them."""


class Ours:
    def __init__(self, pipeline: Pipeline, networks: Networks, x: Tensor, y: Tensor | None) -> None:
        self.game, self.size = build_game(pipeline), pipeline.training.batch_size
        self.plain = Plain(self.game, networks, pipeline.hyperparameters())
        self.batches, self.noise = Batches(x, y, self.size, stream(0, "batches")), stream(0, "noise")
        self.optimizers: Mapping[str, Optimizer] = self.plain.optimizers

    def round(self) -> dict[str, Tensor]:
        return self.plain.round(self.batches, lambda: self.game.noise(self.size, self.noise))


class PlainLoop:
    def __init__(self, pipeline: Pipeline, networks: Networks, x: Tensor, y: Tensor | None) -> None:
        self.h, self.structure = pipeline.hyperparameters(), pipeline.structure()
        self.generator, self.critic = networks["generator"], networks["critic"]
        dataset = TensorDataset(x) if y is None else TensorDataset(x, y)
        self.loader = DataLoader(dataset, batch_size=pipeline.training.batch_size, shuffle=True, drop_last=True)
        self.optimizers: Mapping[str, Optimizer] = {
            "critic": RMSprop(self.critic.parameters(), lr=self.h.lr_critic),
            "generator": RMSprop(self.generator.parameters(), lr=self.h.lr_generator),
        }
        self.rounds = self.play()

    def round(self) -> dict[str, Tensor]:
        return next(self.rounds)

    def play(self) -> Iterator[dict[str, Tensor]]:
        """Endless, over epochs; yields after each generator step."""
        batches = 0
        while True:
            for real, *_ in self.loader:
                self.optimizers["critic"].zero_grad()
                z = torch.randn(len(real), self.structure.z_dim)
                loss_critic = self.critic(self.generator(z).detach()).mean() - self.critic(real).mean()
                loss_critic.backward()
                self.optimizers["critic"].step()
                for weight in self.critic.parameters():
                    weight.data.clamp_(-self.h.clip, self.h.clip)
                batches += 1
                if batches % self.structure.n_critic == 0:
                    self.optimizers["generator"].zero_grad()
                    loss_generator = -self.critic(self.generator(z)).mean()
                    loss_generator.backward()
                    self.optimizers["generator"].step()
                    yield {"loss_critic": loss_critic.detach(), "loss_generator": loss_generator.detach()}


def milliseconds(way: Way, rounds: int) -> float:
    """The processor's, for one round, on average over `rounds`."""
    start = time.process_time()
    for _ in range(rounds):
        way.round()
    return (time.process_time() - start) / rounds * 1e3


def updates(way: Way) -> dict[str, int]:
    """How often each player's optimiser has stepped."""
    states = {name: next(iter(optimizer.state.values())) for name, optimizer in way.optimizers.items()}
    return {name: int(state["step"]) for name, state in states.items()}


def check(ways: Mapping[str, Way]) -> None:
    """Raises SaddleError unless both did the same number of updates, and neither broke."""
    done = {name: updates(way) for name, way in ways.items()}
    if len({tuple(sorted(count.items())) for count in done.values()}) != 1:
        raise SaddleError(f"the numbers of updates differ: {done}")
    for name, way in ways.items():
        losses = {key: float(value) for key, value in way.round().items()}
        if not all(map(math.isfinite, losses.values())):
            raise SaddleError(f"{name}: a loss is not finite: {losses}")


def print_profile(way: Way, rounds: int = 300) -> None:
    """Where the time goes, by function."""
    with cProfile.Profile() as profiler:
        for _ in range(rounds):
            way.round()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(15)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--turns", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=20, help="of a turn")
    arguments.add_argument("--profile", action="store_true", help="show where the time goes in any case")
    asked = arguments.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pipeline = Pipeline.load("digits-wgan", ["training.device=cpu"])
    shared = setup(pipeline)
    networks = build_networks(pipeline, build_game(pipeline), shared)
    x, y = shared.dataset.train, shared.dataset.train_labels
    theirs, own = "plain PyTorch loop, DataLoader", "saddlepoint, the plain way"
    ways: dict[str, Way] = {
        theirs: PlainLoop(pipeline, copy.deepcopy(networks), x, y),
        own: Ours(pipeline, networks, x, y),
    }
    for way in ways.values():
        milliseconds(way, WARM)
    turns = [{name: milliseconds(way, asked.rounds) for name, way in ways.items()} for _ in range(asked.turns)]
    check(ways)

    moves = pipeline.structure().n_critic
    title = f"A round: {moves} critic moves and 1 generator move"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    for column in ("median ms", "fastest", "slowest", "faster by", "aim"):
        table.add_column(column, justify="right")
    ratios = sorted(turn[theirs] / turn[own] for turn in turns)
    ratio = median(ratios)
    for name, faster, aim in ((theirs, "1.00", ""), (own, f"{ratio:.2f}", f">= {AIM}")):
        times = sorted(turn[name] for turn in turns)
        shown = (f"{value:.2f}" for value in (median(times), times[0], times[-1]))
        table.add_row(name, *shown, faster, aim)
    console = Console(highlight=False)
    console.print(table)
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    notes = (
        f"Faster by: the median over {asked.turns} turns of {asked.rounds} rounds;",
        f"half of them lie between {low:.2f} and {high:.2f}.",
        f"Updates of each way: {updates(ways[theirs])}; batch {pipeline.training.batch_size} of {len(x)}.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, 1 thread.",
    )
    console.print(*notes, sep="\n", soft_wrap=True)
    if asked.profile or ratio < AIM:
        console.print("\nWhere our time goes:" if asked.profile else "\nBelow the aim. Where our time goes:")
        print_profile(ways[own])


if __name__ == "__main__":
    main()
