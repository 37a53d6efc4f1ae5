"""Each class of failure, provoked: what the sampler, MLflow and the sweep make of it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.errors import SaddleError
from saddlepoint.scaling import places
from saddlepoint.scaling.jobs import End, Execution, Source
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.query import TrackedRun, children, history, sweeps
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.failures import STANDSTILLS
from saddlepoint.workflows.sweep import Interrupted, sweep

Small = Callable[..., Pipeline]


def tracked() -> dict[str, TrackedRun]:
    [parent] = sweeps(None)
    return {run.key: run for run in children(None, parent.sweep)}


HUNGRY = """
import torch
from saddlepoint.networks.mlp import Critic

class Hungry(Critic):
    def forward(self, x):
        if len(x) > 8:  # a look at the networks, with two samples, sees nothing yet
            torch.empty(2**60, dtype=torch.uint8)  # an exabyte
        return super().forward(x)
"""
BROKEN = """
from saddlepoint.networks.mlp import Critic

class Broken(Critic):
    calls = 0

    def forward(self, x):
        Broken.calls += 1
        if {broken} and len(x) > 8:
            raise ValueError("{words}")
        return super().forward(x)
"""


@pytest.fixture
def net(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Writes a user's module; gives the change of the pipeline that takes its network."""

    def write(name: str, code: str) -> str:
        (workplace / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(workplace))
        sys.modules.pop(name, None)
        return f"networks.critic.factory={name}:{code.split('class ')[1].split('(')[0]}"

    return write


def test_out_of_memory_is_tried_once_more_with_fewer_beside_it_and_then_infeasible(
    workplace: Path, small: Small, net: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowds: list[tuple[int, float]] = []
    run = sweep_room.execute

    def watched(source: Source, *arguments: Any, **options: Any) -> Execution:
        ask = source.next

        def next() -> Any:
            job = ask()
            crowds.extend([(job.number, job.crowd)] if job else [])
            return job

        monkeypatch.setattr(source, "next", next)
        return run(source, *arguments, **options)

    monkeypatch.setattr(sweep_room, "execute", watched)
    trials = sweep(small("search.trials=2", net("hungry_nets", HUNGRY)))

    assert crowds == [(0, 1.0), (0, 0.5), (1, 1.0), (1, 0.5)]
    assert [trial.state for trial in trials] == ["out of memory"] * 2
    for trial in trials:
        run_ = tracked()[f"trial-{trial.number:04d}"]
        assert run_.status == "FAILED"
        assert run_.tags["saddle.outcome"] == "out of memory"
        assert "memory" in run_.tags["saddle.reason"]
        assert run_.tags["saddle.reason"] == trial.reason


def test_the_same_bug_in_a_row_stops_the_sweep_which_goes_on_after_the_repair(
    workplace: Path, small: Small, net: Callable[[str, str], str]
) -> None:
    change = net("broken_nets", BROKEN.format(broken=True, words="not today"))
    with pytest.raises(SaddleError, match="3 trials in a row failed with the same error: ValueError: not today"):
        sweep(small("search.trials=8", change))
    [parent] = sweeps(None)
    runs = tracked()
    assert parent.status == "FAILED"
    assert [run.status for run in runs.values()] == ["FAILED"] * 3
    assert {run.tags["saddle.reason"] for run in runs.values()} == {"ValueError: not today"}
    assert len(list(workplace.glob("mlruns/**/traceback.txt"))) == 3

    net("broken_nets", BROKEN.format(broken=False, words="never"))  # the repair
    trials = sweep(small("search.trials=5", change))
    assert [trial.state == "failed" for trial in trials] == [True] * 3 + [False] * 2
    [parent] = sweeps(None)
    assert parent.status == "FINISHED"


def test_different_failures_do_not_stop_the_sweep(
    workplace: Path, small: Small, net: Callable[[str, str], str]
) -> None:
    change = net("varied_nets", BROKEN.format(broken=True, words='number " + str(Broken.calls) + "'))
    trials = sweep(small("search.trials=4", change))
    assert [trial.state for trial in trials] == ["failed"] * 4
    assert len({trial.reason for trial in trials}) == 4


class Losing:
    """The executor, in this process: the k-th worker of trial n dies after the `at[n][k]`-th report that it makes, and
    before its checkpoint. stop: the command ends with the first of them."""

    def __init__(self, at: dict[int, list[int]], *, stop: bool = False) -> None:
        self.at, self.stop, self.deaths = at, stop, 0

    def __call__(self, source: Source, run: Callable[..., None], **_: Any) -> Execution:
        ended = []
        while (job := source.next()) is not None:
            lives, heard = self.at.get(job.number), 0
            last = lives.pop(0) if lives else None

            def report(values: dict[str, Any], number: int = job.number, last: int | None = last) -> None:
                nonlocal heard
                if heard != last:
                    source.result(number, values)
                    heard += 1
                if heard == last:
                    raise ConnectionResetError

            end = End("done")
            try:
                run(job.payload, report)
            except ConnectionResetError:
                end = End("lost", "worker lost")
                self.deaths += 1
            source.ended(job.number, end)
            if self.deaths and self.stop:
                return Execution(tuple(ended), interrupted=True, workers=1, wall=1.0, busy=1.0)
            ended.append(job.number)
        return Execution(tuple(ended), interrupted=False, workers=1, wall=1.0, busy=1.0)


CALM = ("search.trials=2", "search.pruner=none", "search.sampler=random")


def test_a_lost_worker_costs_nothing_but_the_rounds_since_its_checkpoint(
    workplace: Path,
    small: Small,
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = sweep(small("name=whole", *CALM))
    losing = Losing({0: [2], 1: [1]})  # with a checkpoint of round 4, and with none
    monkeypatch.setattr(sweep_room, "execute", losing)
    monkeypatch.setattr(places, "node", lambda: f"10.0.0.{losing.deaths}")
    broken = sweep(small("name=broken", *CALM))

    for before, after in zip(whole, broken, strict=True):
        assert (after.state, after.value, after.intermediate) == (before.state, before.value, before.intermediate)
        assert after.attrs["lost"] == 1
        assert "went_on" not in before.attrs
    assert [trial.attrs["went_on"] for trial in broken] == [[8], [4]]
    assert [trial.attrs["nodes"] for trial in broken] == [["10.0.0.0", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]]
    capsys.readouterr()
    assert saddle("show", "broken") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "lost its worker once, heard of again at round 8" in shown
    assert "lost its worker once, heard of again at round 4" in shown
    parent = next(run for run in sweeps(None) if run.name == "broken")
    runs = {run.key: run for run in children(None, parent.sweep)}
    for run in runs.values():
        assert run.status == "FINISHED"
        assert run.tags["saddle.lost"] == "1"
        assert [step for step, _ in history(None, run.run_id, "fid")] == [4, 8, 12]
    first = runs["trial-0000"].tags
    assert (first["saddle.went_on"], first["saddle.nodes"]) == ("8", "10.0.0.0, 10.0.0.1")


def test_each_loss_has_the_round_of_the_report_after_it(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two in a row, of which the second worker says nothing; and a third, later on."""
    monkeypatch.setattr(sweep_room, "execute", Losing({0: [2, 0, 2]}))
    first, second = sweep(small(*CALM))
    assert (first.attrs["lost"], first.attrs["went_on"]) == (3, [8, 8, 12])
    assert not {"lost", "went_on"} & second.attrs.keys()


def test_a_command_that_ends_after_the_loss_knows_of_it_when_it_goes_on(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_room, "execute", Losing({0: [3]}, stop=True))
    with pytest.raises(Interrupted):
        sweep(small(*CALM))
    monkeypatch.setattr(sweep_room, "execute", Losing({}))
    first, _ = sweep(small(*CALM))
    assert first.attrs["went_on"] == [12]


def test_a_trial_that_kills_its_worker_each_time_at_the_same_place_fails(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_room, "execute", Losing({0: [0] * STANDSTILLS}))
    poisoned, well = sweep(small("search.trials=2", "search.pruner=none"))
    assert poisoned.state == "failed"
    assert poisoned.reason == f"its worker died {STANDSTILLS} times in a row at round 0"
    assert poisoned.attrs["lost"] == STANDSTILLS
    assert "went_on" not in poisoned.attrs
    assert well.state == "complete"
