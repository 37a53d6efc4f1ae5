"""Milliseconds of a WGAN round, 5 critic moves and 1 generator move: Saddlepoint's plain way beside a plain loop.

The loop is what one finds in public (PyTorch-GAN, implementations/wgan/wgan.py, without its prints): a shuffling
DataLoader, a fresh z for each batch, `backward`, RMSprop, a clamp of each weight, the generator every n_critic
batches. Both play the pipeline digits-wgan: equal networks, equal weights at the start, equal batch size, no
evaluation, one thread. They take turns, so that whatever else the machine does falls on both.
"""

import argparse
import copy
import cProfile
import math
import platform
import pstats
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer, RMSprop
from torch.utils.data import DataLoader, TensorDataset

from saddlepoint.errors import SaddleError
from saddlepoint.spec import Pipeline
from saddlepoint.training.batches import Batches
from saddlepoint.training.plain import Plain
from saddlepoint.training.randomness import stream
from saddlepoint.training.setup import build_game, build_networks, setup

AIM = 1.3  # the plain loop's milliseconds over ours
WARM = 10  # rounds: first steps allocate

Losses = dict[str, Tensor]  # loss_critic, loss_generator: of a round's last moves


class Ours:
    def __init__(self, pipeline: Pipeline, networks: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> None:
        self.game, self.size = build_game(pipeline), pipeline.training.batch_size
        self.plain = Plain(self.game, networks, pipeline.hyperparameters())
        self.batches, self.noise = Batches(x, y, self.size, stream(0, "batches")), stream(0, "noise")
        self.optimizers: Mapping[str, Optimizer] = self.plain.optimizers

    def round(self) -> Losses:
        return self.plain.round(self.batches, lambda: self.game.noise(self.size, self.noise))


class PlainLoop:
    def __init__(self, pipeline: Pipeline, networks: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> None:
        self.h, self.structure = pipeline.hyperparameters(), pipeline.structure()
        self.generator, self.critic = networks["generator"], networks["critic"]
        self.loader = DataLoader(
            TensorDataset(x, y), batch_size=pipeline.training.batch_size, shuffle=True, drop_last=True
        )
        self.optimizers: Mapping[str, Optimizer] = {
            "critic": RMSprop(self.critic.parameters(), lr=self.h.lr_critic),
            "generator": RMSprop(self.generator.parameters(), lr=self.h.lr_generator),
        }
        self._rounds = self._play()

    def round(self) -> Losses:
        return next(self._rounds)

    def _play(self) -> Iterator[Losses]:
        """Endless, over epochs; yields after each generator step."""
        batches = 0
        while True:
            for real, _ in self.loader:
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


Way = Ours | PlainLoop


def milliseconds(way: Way, rounds: int) -> float:
    """Of one round, on average over `rounds`."""
    start = time.process_time()
    for _ in range(rounds):
        way.round()
    return (time.process_time() - start) / rounds * 1e3


def updates(way: Way) -> dict[str, int]:
    """How often each player's optimiser has stepped."""
    return {
        name: int(next(iter(optimizer.state.values()))["step"]) for name, optimizer in way.optimizers.items()
    }


def check(ways: Mapping[str, Way]) -> None:
    """Both did the same amount of work, and neither broke."""
    done = {name: updates(way) for name, way in ways.items()}
    if len({tuple(sorted(count.items())) for count in done.values()}) != 1:
        raise SaddleError(f"the numbers of updates differ: {done}")
    for name, way in ways.items():
        losses = {key: float(value) for key, value in way.round().items()}
        if not all(map(math.isfinite, losses.values())):
            raise SaddleError(f"{name}: a loss is not finite: {losses}")


def profile(way: Callable[[], Losses], rounds: int = 300) -> None:
    """Where the time goes, by function."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(rounds):
        way()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(15)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=20, help="how often the two take turns")
    arguments.add_argument("--rounds", type=int, default=50, help="rounds of a turn")
    arguments.add_argument(
        "--profile", action="store_true", help="shows where the time goes, whatever comes out"
    )
    asked = arguments.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pipeline = Pipeline.load("digits-wgan", ["training.device=cpu"])
    shared = setup(pipeline)
    networks = build_networks(pipeline, build_game(pipeline), shared)
    x = shared.dataset.train
    ways: dict[str, Way] = {
        "plain PyTorch loop, DataLoader": PlainLoop(pipeline, copy.deepcopy(networks), x),
        "saddlepoint, plain way": Ours(pipeline, networks, x),
    }
    for way in ways.values():
        milliseconds(way, WARM)
    turns = [
        {name: milliseconds(way, asked.rounds) for name, way in ways.items()} for _ in range(asked.repeats)
    ]
    check(ways)

    theirs, own = ways
    ratios = sorted(turn[theirs] / turn[own] for turn in turns)
    table = Table(
        title="A round: 5 critic moves and 1 generator move", title_justify="left", box=None, pad_edge=False
    )
    for column in ("", "median ms", "fastest", "slowest", "ratio", "aim"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, ratio, aim in ((theirs, "1.00", ""), (own, f"{median(ratios):.2f}", f">= {AIM}")):
        times = sorted(turn[name] for turn in turns)
        table.add_row(name, *(f"{value:.2f}" for value in (median(times), times[0], times[-1])), ratio, aim)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"The ratio is the median over {asked.repeats} turns of {asked.rounds} rounds each; turn by turn it lay "
        f"between {ratios[0]:.2f} and {ratios[-1]:.2f}.\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, 1 thread, batch "
        f"{pipeline.training.batch_size}, {len(x)} samples, updates of each way {updates(ways[own])}.",
        soft_wrap=True,
    )
    if asked.profile or median(ratios) < AIM:
        console.print("\nWhere our time goes:")
        profile(ways[own].round)


if __name__ == "__main__":
    main()
