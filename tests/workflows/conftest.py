"""Whole workflows on real digits, small: a few rounds, in this process instead of on Ray's workers."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saddlepoint import cli
from saddlepoint.remote import Outage
from saddlepoint.scaling.jobs import End, Execution, Source
from saddlepoint.spec import Pipeline
from saddlepoint.workflows import sweep as sweep_room

SMALL = (
    "training.rounds=12",
    "training.evaluate_every=4",
    "training.log_every=2",
    "training.batch_size=32",
    "search.trials=4",
    "search.min_rounds=4",
    "confirm.top=1",
    "confirm.seeds=2",
    "networks.generator.widths=[16]",
    "networks.critic.widths=[16]",
)


class Stopped(SystemExit):
    """What a worker's `report` raises when the source has said stop."""


def in_process(source: Source, run: Callable[..., None], *, interrupt_after: int | None = None, **_: Any) -> Execution:
    """The executor's contract, one job after the other. Ctrl-C comes after so many reports, if asked for."""
    heard, ended = 0, []
    while (job := source.next()) is not None:

        def report(values: dict[str, Any], number: int = job.number) -> None:
            nonlocal heard
            heard += 1
            if source.result(number, values):
                raise Stopped
            if heard == interrupt_after:
                raise KeyboardInterrupt

        end = End("done")
        try:
            run(job.payload, report)
        except Stopped:
            pass
        except KeyboardInterrupt:
            return Execution(tuple(ended), interrupted=True, workers=1, wall=1.0, busy=1.0)
        except Outage as error:
            end = End("outage", str(error))
        except Exception:
            end = End("error", traceback.format_exc())
        source.ended(job.number, end)
        ended.append(job.number)
    return Execution(tuple(ended), interrupted=False, workers=1, wall=1.0, busy=1.0)


@pytest.fixture
def small() -> Callable[..., Pipeline]:
    return lambda *changes: Pipeline.load("digits-wgan", [*SMALL, *changes])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with its own tracking store; Ray stays away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sweep_room, "execute", in_process)
    for room in ("report", "run"):
        monkeypatch.setattr(f"saddlepoint.workflows.{room}.publish", lambda at: None)  # a second, and 5 MB, each time
    monkeypatch.setattr(sweep_room.cluster, "running", lambda **_: sweep_room.nullcontext())
    return tmp_path


@pytest.fixture
def saddle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`saddle("plan", "digits-wgan")`: the command, in this process; gives its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["saddle", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return run
