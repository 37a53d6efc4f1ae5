"""What a sweep may spend: rounds, hours, disk; and several trainings behind one score."""

import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn

from saddlepoint.errors import SaddleError
from saddlepoint.networks.mlp import Critic
from saddlepoint.randomness import derive
from saddlepoint.scaling.jobs import End, Execution, Source
from saddlepoint.search.ledger import Ledger
from saddlepoint.spec import Pipeline
from saddlepoint.spec_resources import BudgetSpec
from saddlepoint.tracking.query import children, history, sweeps
from saddlepoint.training.loop import Report, train
from saddlepoint.training.setup import setup
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.budget import CLOCK, Budget
from saddlepoint.workflows.disk import Disk, remove, size
from saddlepoint.workflows.footprint import trial_bytes
from saddlepoint.workflows.sweep import Interrupted, sweep
from saddlepoint.workflows.trial import Order, together, work

Small = Callable[..., Pipeline]
UNPRUNED = ("search.pruner=none", "search.sampler=random")


def test_a_budget_of_rounds_ends_the_sweep_and_a_larger_one_goes_on(workplace: Path, small: Small) -> None:
    # of 12 rounds each: after two trials 24 of 20 are spent
    trials = sweep(small("search.trials=9", "search.budget.rounds=20", *UNPRUNED))
    assert len(trials) == 2
    assert len(sweep(small("search.trials=9", "search.budget.rounds=20", *UNPRUNED))) == 2
    longer = sweep(small("search.trials=9", "search.budget.rounds=37", *UNPRUNED))
    assert longer[:2] == trials
    assert len(longer) == 4


def test_hours_count_over_all_lives_and_gpu_hours_are_those_of_the_trials(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = small()
    assert pipeline.search is not None
    ledger = Ledger.open(
        None, "s", space=pipeline.search.space, rounds=12, objective=pipeline.objective.built(), pruner="none"
    )
    now = 0.0
    monkeypatch.setattr("saddlepoint.workflows.budget.time.monotonic", lambda: now)
    first = Budget(BudgetSpec(hours=2.0), ledger, gpus=0.5)
    now = 5000.0
    first.note()
    assert first.spent() is None
    now = 1e6  # another command, on another day
    second = Budget(BudgetSpec(hours=2.0), ledger, gpus=0.5)
    assert ledger.get(CLOCK) == 5000.0
    assert second.hours == pytest.approx(5000 / 3600, abs=1e-9)
    now += 2201.0
    assert second.spent() == "search.budget.hours: 2.00 of 2 are spent"

    by_gpu = Budget(BudgetSpec(gpu_hours=0.25), ledger, gpus=0.5)
    by_gpu.spend(rounds=12, seconds=1799.0)
    assert by_gpu.spent() is None
    by_gpu.spend(rounds=0, seconds=1.0)
    assert by_gpu.spent() == "search.budget.gpu_hours: 0.25 of 0.25 are spent"
    assert by_gpu.rounds == 12


def generators(workplace: Path) -> set[str]:
    return {path.parent.name for path in workplace.glob("sweeps/digits-wgan/trials/*/generator.safetensors")}


def test_only_the_best_keep_their_generators(workplace: Path, small: Small) -> None:
    trials = sweep(small("search.trials=5", "search.keep=2", *UNPRUNED))
    assert all(trial.state == "complete" for trial in trials)
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[:2]
    assert generators(workplace) == {f"{trial.number:04d}" for trial in best}
    # and a command that goes on keeps the best of all, not of its own
    more = sweep(small("search.trials=8", "search.keep=2", *UNPRUNED))
    best = sorted(more, key=lambda trial: trial.value or 0.0)[:2]
    assert generators(workplace) == {f"{trial.number:04d}" for trial in best}


def test_the_cap_holds_at_every_report_and_costs_generators_of_the_worst(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = small("search.trials=5", "search.keep=5", *UNPRUNED)
    sweep(small("name=before", "search.trials=1"))
    generator = size(workplace / "sweeps" / "before" / "trials" / "0000")
    need = trial_bytes(pipeline, setup(pipeline))
    cap = (need + 2.5 * generator) / 1e9  # room for a live trial and two kept ones
    seen: list[int] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.002):
            seen.append(size(workplace / "sweeps" / "digits-wgan" / "trials"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        trials = sweep(pipeline.model_copy(update={"search": pipeline.search.model_copy(update={"disk_gb": cap})}))  # type: ignore[union-attr]
    finally:
        watching.set()
        thread.join()
    assert len(trials) == 5
    assert max(seen) <= cap * 1e9
    kept = generators(workplace)
    assert 2 <= len(kept) <= 3  # the last one came after the choice
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[: len(kept) - 1]
    assert {f"{trial.number:04d}" for trial in best} <= kept


def test_a_cap_that_does_not_hold_one_trial_is_said_at_once(workplace: Path, small: Small) -> None:
    with pytest.raises(SaddleError, match=r"search\.disk_gb: 1e-06 GB do not hold one trial, which takes up to"):
        sweep(small("search.disk_gb=1e-6"))


def test_a_trial_waits_until_there_is_room_beside_the_live_ones(tmp_path: Path) -> None:
    for number, content in ((3, 40), (5, 30)):
        (tmp_path / f"{number:04d}").mkdir()
        (tmp_path / f"{number:04d}" / "generator").write_bytes(bytes(content))
    disk = Disk(tmp_path, cap=200, need=60)
    assert disk.room([5, 3], live={1, 2})  # 120 + 60 and none of the kept ones
    assert not disk.folder(3).exists()
    assert not disk.folder(5).exists()
    assert not disk.room([], live={1, 2, 7})
    assert Disk(tmp_path, cap=None, need=0).room([], live=set(range(99)))


def test_what_a_crash_left_half_deleted_is_swept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "0004"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "generator").write_bytes(bytes(10))
    monkeypatch.setattr("saddlepoint.workflows.disk.shutil.rmtree", lambda *_, **__: None)  # killed right here
    remove(folder)
    assert not folder.exists()
    assert size(tmp_path) == 10
    monkeypatch.undo()
    Disk(tmp_path, cap=None, need=0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_did_not_come_to_remove_is_removed_by_the_next(workplace: Path, small: Small) -> None:
    trials = sweep(small("search.trials=3", *UNPRUNED))
    folder = workplace / "sweeps" / "digits-wgan" / "trials"
    (folder / "0001" / CHECKPOINT).write_bytes(b"of a trial that has ended")
    (folder / "0002" / f".{CHECKPOINT}.half").write_bytes(b"killed while it was written")
    sweep(small("search.trials=3", "search.keep=2", *UNPRUNED))
    best = sorted(trials, key=lambda trial: trial.value or 0.0)[:2]
    assert generators(workplace) == {f"{trial.number:04d}" for trial in best}
    assert not [path for path in folder.rglob("*") if CHECKPOINT in path.name]


def test_trials_that_wait_from_an_earlier_life_keep_their_checkpoints(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two were in mid-run; the command that goes on runs one at a time, and the other must not lose what it has."""
    changes = ("search.trials=2", "search.keep=1", *UNPRUNED)
    whole = sweep(small("name=whole", *changes))
    one_by_one = sweep_room.execute

    def two_at_once(source: Source, run: Callable[..., None], **_: Any) -> Execution:
        for job in [source.next(), source.next()]:
            assert job is not None
            heard: list[int] = []

            def report(values: dict[str, Any], number: int = job.number, heard: list[int] = heard) -> None:
                heard.append(values["round"])
                if len(heard) == 2:  # the checkpoint of the first one is written
                    raise ConnectionResetError
                source.result(number, values)

            with pytest.raises(ConnectionResetError):
                run(job.payload, report)
        return Execution((), interrupted=True, workers=2, wall=1.0, busy=1.0)

    monkeypatch.setattr(sweep_room, "execute", two_at_once)
    with pytest.raises(Interrupted):
        sweep(small(*changes))

    second = workplace / "sweeps" / "digits-wgan" / "trials" / "0001" / CHECKPOINT
    there: list[bool] = []

    def watched(source: Source, *arguments: Any, **options: Any) -> Execution:
        end = source.ended

        def ended(number: int, how: End) -> None:
            end(number, how)
            there.append(second.exists())

        monkeypatch.setattr(source, "ended", ended)
        return one_by_one(source, *arguments, **options)

    monkeypatch.setattr(sweep_room, "execute", watched)
    again = sweep(small(*changes))
    assert there == [True, False]
    assert [(t.values, t.intermediate, t.value) for t in again] == [(t.values, t.intermediate, t.value) for t in whole]


def reports(trial: Pipeline, seeds: int, folder: Path) -> Iterator[Report]:
    order = Order(trial.content(), 3, str(folder), seeds)
    return together([train(trial, seed=seed, folder=place) for seed, place in order.trainings()])


def scores(report: Report) -> tuple[int, bool, dict[str, float]]:
    return report.round, report.final, report.metrics


def test_a_trial_of_three_seeds_reports_their_means(workplace: Path, small: Small) -> None:
    [trial] = sweep(small("search.trials=1", "search.seeds=3", *UNPRUNED))
    pipeline = small().with_values(trial.values)
    alone = [
        [report.metrics["fid"] for report in train(pipeline, seed=seed, folder=workplace / f"alone-{index}")]
        for index, seed in enumerate(derive(trial.seed, "repeat", index) for index in range(3))
    ]
    means = [fmean(values) for values in zip(*alone, strict=True)]
    assert list(trial.intermediate.values()) == pytest.approx(means[:-1], abs=1e-9)
    assert trial.value == pytest.approx(means[-1], abs=1e-9)
    assert len({round(values[0], 6) for values in alone}) == 3  # three trainings, not one three times
    [parent] = sweeps(None)
    [run] = children(None, parent.sweep)
    assert [step for step, _ in history(None, run.run_id, "emd")] == [2, 4, 6, 8, 10, 12]


class Dropping(Critic):
    """Draws from torch's own stream, which all trainings of a process share."""

    def __init__(self, sample_shape: tuple[int, ...], widths: list[int]) -> None:
        super().__init__(sample_shape, widths=widths)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x))


def killed_at(count: int, reports: Iterator[Report]) -> Iterator[Report]:
    """Its process dies when it is asked for that report."""
    yield from islice(reports, count)
    raise ConnectionResetError


def test_seeds_that_were_killed_apart_come_together_again(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("dropping_nets")
    module.Dropping = Dropping  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dropping_nets", module)
    trial = small("networks.critic.factory=dropping_nets:Dropping").with_values({"clip": 0.02})
    whole = [scores(report) for report in reports(trial, 2, tmp_path / "whole")]

    places = Order(trial.content(), 3, str(tmp_path / "cut"), 2).trainings()
    first, second = (train(trial, seed=seed, folder=folder) for seed, folder in places)
    heard = together([first, killed_at(2, second)])
    assert [scores(next(heard)), scores(next(heard))] == whole[:2]
    with pytest.raises(ConnectionResetError):  # the first has its checkpoint of round 8, the second that of round 4
        next(heard)
    assert [scores(report) for report in reports(trial, 2, tmp_path / "cut")] == whole[2:]


def test_a_divergence_is_a_result_of_the_worker(small: Small, tmp_path: Path) -> None:
    said: list[dict[str, object]] = []
    work(Order(small("game.hyperparameters.lr_generator=1e30").content(), 0, str(tmp_path / "wild")), said.append)
    assert list(said[-1]) == ["diverged"]


def test_a_sweep_is_extended_by_a_wider_space_and_by_more_rounds(workplace: Path, small: Small) -> None:
    first = sweep(small("search.trials=4", *UNPRUNED))
    wider = workplace / "wider.yaml"
    wider.write_text(
        "game: wgan\nparameters:\n"
        "  lr_critic: {type: log_float, low: 1e-6, high: 1e-1, default: 5e-5}\n"
        "  lr_generator: {type: log_float, low: 1e-5, high: 1e-2, default: 5e-5}\n"
        "  clip: {type: log_float, low: 0.003, high: 0.32, default: 0.01}\n"
        "  n_critic: {type: choice, choices: [1, 2, 3, 5], default: 5}\n"
    )
    changes = ("search.trials=7", f"search.space={wider}", *UNPRUNED)
    with pytest.raises(SaddleError, match="was begun with another pipeline"):
        sweep(small(*changes))
    second = sweep(small(*changes), extend=True)
    assert [(t.values, t.seed, t.state, t.value) for t in second[:4]] == [
        (t.values, t.seed, t.state, t.value) for t in first
    ]
    assert len(second) == 7

    longer = sweep(
        small("search.trials=7", f"search.space={wider}", "training.rounds=16", *UNPRUNED), extend=True, top=2
    )
    best = sorted((t for t in second if t.value is not None), key=lambda t: t.value or 0.0)[:2]
    at_length = [t for t in longer if t.state == "complete"]
    assert [t.values for t in at_length] == [t.values for t in best]
    assert all(max(t.intermediate) == 16 for t in at_length)
    assert sweep_room.Folder.existing("digits-wgan").pipeline().training.rounds == 16
