"""Kills everything that a sweep consists of, at random instants, and shows that nothing was lost.

    python benchmarks/chaos [--kills 30] [--seed 0]

The sweep runs as its own process beside an MLflow server of its own. Killed are, by SIGKILL: the command, all of it at
once, a worker, Ray's two head processes, the tracking server. The same command is then repeated; at the end ledger and
tracking store are compared, bit for bit, with those of a sweep that nobody disturbed. Exit code 1: something differs.
"""

import argparse
import platform
import sys
import tempfile
from collections import deque
from datetime import date
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median

import torch
from killing import KINDS, Chaos, Scenario, Story, Undisturbed, plan

SMALL = (
    "training.device=cpu",
    "training.rounds=240",
    "training.evaluate_every=30",
    "training.log_every=10",
    "training.batch_size=32",
    "networks.generator.widths=[16]",
    "networks.critic.widths=[16]",
    "resources.cpus=1",
    "search.min_rounds=30",
)
SIDE_BY_SIDE = Scenario(
    "random-two-at-once",
    (*SMALL, "search.trials=8", "search.sampler=random", "search.pruner=none", "resources.concurrency=2"),
)
IN_A_ROW = Scenario(
    "tpe-halving-one-at-once",
    (*SMALL, "search.trials=9", "search.sampler=tpe", "search.pruner=successive_halving", "resources.concurrency=1"),
)


def chaos(kills: int, seed: int, scenarios: tuple[Scenario, ...], place: Path) -> Story:
    """Sweeps, the scenarios in turn, until so many kills are done; the whole story of all."""
    whole, left = Story(), deque(plan(seed, kills))
    store = place / "mlflow.db"
    wanted = {each.name: Undisturbed.run(each, place / f"{each.name}.undisturbed", store) for each in scenarios}
    for number, scenario in enumerate(cycle(scenarios)):
        quiet = wanted[scenario.name]
        points = sum(quiet.evidence.points.values())
        print(f"{scenario.name}: {points} points in {quiet.start:.0f} + {quiet.rest:.0f} s undisturbed", flush=True)
        told = Chaos(scenario, place / f"{scenario.name}.{number}", store, quiet, left).run()
        print(f"  {told.losses}", flush=True)
        whole.struck += told.struck
        whole.losses += told.losses
        whole.commands += told.commands
        whole.seconds += told.seconds
        if not left:
            return whole
    raise AssertionError("cycle does not end")


def table(story: Story) -> str:
    lines = [
        "| killed | times | command at its end after, s | a trial was heard of again after, s | struck again before |",
        "|---|---|---|---|---|",
    ]
    for kind, meaning in KINDS.items():
        struck = [each for each in story.struck if each.kind == kind]
        ends = [each.ended for each in struck if each.ended is not None]
        ons = [each.on for each in struck if each.on is not None]
        columns = [kind + ": " + meaning, str(len(struck)), _spread(ends), _spread(ons), str(len(struck) - len(ons))]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} (at most {max(seconds):.1f})" if seconds else "-"


def report(story: Story, seed: int) -> str:
    machine = (
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "mlflow", "torch"))
    head = f"{len(story.struck)} kills (seed {seed}), {story.commands} commands, {story.seconds:.0f} s"
    return f"{head}; {machine}, {versions}\n\n{table(story)}\n\n{story.losses}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills everything that a sweep consists of.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        story = chaos(chosen.kills, chosen.seed, (SIDE_BY_SIDE, IN_A_ROW), Path(folder))
    print(f"\n{report(story, chosen.seed)}")
    sys.exit(1 if story.losses else 0)


if __name__ == "__main__":
    main()
