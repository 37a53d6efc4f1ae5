"""Several workers train as one process would: alone and inside of a sweep, killed, interrupted, pruned."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import placement_group_table

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.scaling import cluster
from saddlepoint.scaling.executor import rest
from saddlepoint.scaling.group import play
from saddlepoint.scaling.jobs import End, LastReport, Resources
from saddlepoint.search.records import Outcome
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.query import children, history, sweeps
from saddlepoint.training.loop import Report, train
from saddlepoint.training.team import Team, here
from saddlepoint.workflows import trial as trial_room
from saddlepoint.workflows import workers
from saddlepoint.workflows.plan import plan, side_by_side
from saddlepoint.workflows.sweep import sweep
from saddlepoint.workflows.train import train_here
from saddlepoint.workflows.trial import Order, work

from .conftest import SMALL

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file

Small = Callable[..., Pipeline]
GAMES = ["gan", "wgan", "cgan", "cyclegan", "avb"]
TWO = {"resources.workers": 2}


@pytest.fixture(scope="module")
def cpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with cluster.running(cpus=4, log=tmp_path_factory.mktemp("ray") / "ray.log"):
        yield 4


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@contextmanager
def unseen(pipeline: Pipeline) -> Iterator[Callable[[Report], None]]:
    yield lambda report: None


def one_after_another(payload: list[tuple[str, dict[str, Any], str]], report: Callable[[dict[str, Any]], None]) -> None:
    for name, content, folder in payload:
        for told in train(Pipeline.parse(content), seed=0, folder=Path(folder), team=here()):
            report({"training": name, "report": asdict(told)})


@pytest.fixture(scope="module")
def together(
    cpus: int, game_in_small: Small, toy: Small, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Report]]:
    """The reports of each game, and of the toy pipeline, played by one group of two."""
    folder, heard = tmp_path_factory.mktemp("together"), dict[str, list[Report]]()
    trainings = {name: game_in_small(name, TWO) for name in GAMES} | {"toy": toy(TWO)}
    payload = [(name, pipeline.content(), str(folder / name)) for name, pipeline in trainings.items()]

    def hear(values: dict[str, Any]) -> None:
        heard.setdefault(values["training"], []).append(Report(**values["report"]))

    end = play(one_after_another, payload, hear, resources=Resources(workers=2), storage=folder)
    assert end == End("done")
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_two_workers_equal_one_with_the_whole_batch(
    name: str, together: dict[str, list[Report]], game_in_small: Small, tmp_path: Path
) -> None:
    """In float32, after 6 rounds: logs to 1e-4 of their size, scores to 1e-2 (64 samples; a nearest neighbour may be
    another one). In float64 the same holds to 1e-10: tests/training/test_team.py."""
    alone = list(train(game_in_small(name), seed=0, folder=tmp_path))
    assert [(r.round, r.final, r.best_round) for r in together[name]] == [
        (r.round, r.final, r.best_round) for r in alone
    ]
    for ours, theirs in zip(together[name], alone, strict=True):
        assert [round for round, _ in ours.trace] == [round for round, _ in theirs.trace]
        for (_, mine), (_, other) in zip(ours.trace, theirs.trace, strict=True):
            assert mine == pytest.approx(other, rel=1e-4, abs=1e-5)
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-2, abs=1e-3)
        assert ours.pictures.keys() == theirs.pictures.keys()


def deadly(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    """As workers do, but the second of the first group dies by kill -9 when the first is about to report round 12."""
    mark = Path(order.folder) / "died"

    def dying(values: dict[str, Any]) -> None:
        if values["round"] == 12 and here().rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        report(values)

    work(order, lambda values: dying({**values, workers.MEGABYTES: 7.0}))


@pytest.mark.slow
def test_interrupted_and_killed_it_goes_on_to_the_same_numbers_each_told_once(
    cpus: int, together: dict[str, list[Report]], toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, bool]] = []

    @contextmanager
    def interrupted(pipeline: Pipeline) -> Iterator[Callable[[Report], None]]:
        def advance(report: Report) -> None:
            heard.append((report.round, report.final))
            if len(heard) == 2:
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(KeyboardInterrupt):
        train_here(toy(TWO), place / "it", progress=interrupted)
    [run] = sweeps(None)
    assert (run.status, run.tags["saddle.outcome"]) == ("KILLED", "interrupted")

    monkeypatch.setattr(workers, "_work", deadly)
    done = train_here(toy(TWO), place / "it", progress=interrupted)
    assert heard == [(4, False), (8, False), (8, False), (12, False), (12, False), (12, True)]
    assert (place / "it" / "died").exists()
    assert done.memory_megabytes == 7.0  # of the worker, not of this process

    never = together["toy"]
    assert done.scores == never[-1].metrics
    assert done.best_round == never[-1].best_round
    [run] = sweeps(None)
    assert run.status == "FINISHED"
    trace = [entry for report in never for entry in report.trace]
    assert [round for round, _ in trace] == [3, 6, 9, 12]
    for name in ("loss_critic", "loss_generator"):
        assert history(None, run.run_id, name) == [(round, logs[name]) for round, logs in trace]
    assert history(None, run.run_id, "coverage") == [(r.round, r.metrics["coverage"]) for r in never if not r.final]
    assert {path.name for path in (place / "it").iterdir()} >= {"checkpoint.pt", "generator.safetensors"}
    assert not list((place / "it").glob("train-*"))  # of Ray Train's own


@pytest.mark.slow
def test_a_sweep_of_two_worker_trials_prunes_and_leaves_nothing_behind(cpus: int, place: Path) -> None:
    changes = ("resources.workers=2", "search.eta=2", "training.device=cpu")
    pipeline = Pipeline.load("digits-wgan", [*SMALL, *changes])
    trials = sweep(pipeline)

    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    states = [trial.state for trial in trials]
    assert set(states) == {"complete", "pruned"}
    [parent] = sweeps(None)
    runs = {run.key: run.status for run in children(None, parent.sweep)}
    assert runs == {f"trial-{n:04d}": {"complete": "FINISHED", "pruned": "KILLED"}[s] for n, s in enumerate(states)}
    for trial in trials:
        assert list(trial.intermediate) == [4, 8, 12][: len(trial.intermediate)]
        assert (len(trial.intermediate) == 3) == (trial.state == "complete")
    rest()
    assert free()
    first = next(train(pipeline.with_values(trials[0].values), seed=trials[0].seed, folder=place / "alone"))
    assert trials[0].intermediate[4] == pytest.approx(first.metrics["fid"], rel=1e-3)


def free() -> bool:
    """Whether all CPUs and placement groups are, within seconds: Ray counts now and then."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        left = [each for each in placement_group_table().values() if each["state"] != "REMOVED"]
        if not left and ray.available_resources().get("CPU") == 4:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("count", "line"),
    [
        ("64", "saddle: resources: the training asks for 64 workers, each with 1 CPU, the nodes have 4 CPU\n"),
        ("3", "saddle: training.batch_size: 64 should be a multiple of 3"),
        ("0", "saddle: Invalid value for '--workers': "),
    ],
)
def test_workers_that_cannot_be_are_refused_in_a_line_before_anything_is_begun(
    cpus: int, place: Path, saddle: Callable[..., int], capsys: pytest.CaptureFixture[str], count: str, line: str
) -> None:
    assert saddle("train", "digits-wgan", "--workers", count, "--set", "training.device=cpu") == 2
    said = capsys.readouterr().err
    assert said.startswith(line.removesuffix("\n"))
    assert said.count("\n") == 1
    assert list(place.iterdir()) == []


def test_a_refusal_leaves_what_was_there_and_nothing_else(
    cpus: int, toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        logging.getLogger("ray").warning("what Ray says while it starts")
        assert "while it starts" in (place / "runs" / name / "ray.log").read_text()
        raise UserError("no room")

    monkeypatch.setattr(workers, "fitting", full)
    (place / "runs" / "it").mkdir(parents=True)
    (place / "runs" / "it" / "ray.log").write_text("of an earlier life\n")
    for name in ("it", "new/it"):
        with pytest.raises(UserError, match="no room"), workers.ready(toy(TWO), place / "runs" / name):
            pytest.fail("it went on")
    assert [path.name for path in (place / "runs").rglob("*")] == ["it", "ray.log"]
    assert (place / "runs" / "it" / "ray.log").read_text().startswith("of an earlier life\n")


def test_one_worker_needs_no_ray(toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ready", lambda *_: pytest.fail("Ray was started"))
    done = train_here(toy({"training.rounds": 4}), place / "it", progress=unseen)
    assert done.memory_megabytes > 50  # of this process
    assert (place / "it" / "generator.safetensors").exists()


class Played:
    """In place of a group: each life makes its reports, and ends as it is told."""

    def __init__(self, *lives: tuple[list[dict[str, Any]], End]) -> None:
        self.lives = list(lives)

    def __call__(self, run: object, order: Order, hear: Callable[[dict[str, Any]], None], **_: object) -> End:
        reports, end = self.lives.pop(0)
        for values in reports:
            hear(dict(values))
        return end


def told(round: int, final: bool = False) -> dict[str, Any]:
    return asdict(Report(round, {"emd": 1.0}, [], final=final)) | {workers.MEGABYTES: 1.0}


LOST = End("lost", "worker lost")


def test_it_is_tried_again_as_long_as_it_gets_further(toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives = [([], LOST), ([], LOST), ([told(4)], LOST), ([], LOST), ([told(8)], LOST)]
    played = Played(*lives, ([told(12), told(12, final=True)], End("done")))
    monkeypatch.setattr(workers, "play", played)
    rounds: list[int] = []
    workers.train(toy(TWO), place, lambda report, megabytes: rounds.append(report.round), at_rest=lambda: None)
    assert rounds == [4, 8, 12, 12]
    assert not played.lives


@pytest.mark.parametrize(
    ("lives", "line"),
    [
        ([([told(4)], LOST), ([], LOST), ([], LOST)], "its workers died 3 times in a row at round 4: worker lost"),
        ([([{Outcome.DIVERGED.value: "loss_critic is nan by round 3"}], End("done"))], "loss_critic is nan by round 3"),
        ([([{Outcome.OUT_OF_MEMORY.value: "DefaultCPUAllocator"}], End("done"))], "out of memory: DefaultCPUAllocator"),
        ([([told(4)], End("memory", "its node ran out of memory"))], "out of memory: its node ran out of memory"),
    ],
)
def test_what_ends_it_is_said_in_a_line(
    toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch, lives: list[tuple[list[dict[str, Any]], End]], line: str
) -> None:
    played = Played(*lives)
    monkeypatch.setattr(workers, "play", played)
    with pytest.raises(SaddleError) as caught:
        workers.train(toy(TWO), place, lambda report, megabytes: None, at_rest=lambda: None)
    assert str(caught.value) == line
    assert not played.lives


def test_a_member_that_runs_out_of_memory_does_not_wait_for_the_others(
    toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> Iterator[Report]:
        raise MemoryError("can't allocate memory")
        yield

    monkeypatch.setattr(trial_room, "train", exhausted)
    heard: list[dict[str, Any]] = []
    order = Order(toy().content(), 0, str(place))
    work(order, heard.append)
    assert heard == [{Outcome.OUT_OF_MEMORY.value: "can't allocate memory"}]
    monkeypatch.setattr(trial_room, "here", lambda: Team(1, 2))
    with pytest.raises(LastReport) as last:
        work(order, heard.append)
    assert last.value.values == heard[0]
    assert len(heard) == 1


def test_a_plan_counts_workers_and_parts_of_gpus(
    toy: Small, place: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    asked = toy().resources
    fits = {
        ("workers", 2): 3,
        ("workers", 4): 1,
        ("gpus", 0.4): 4,
        ("gpus", 1.0): 2,
        ("cpus", 3): 2,
    }
    for (name, value), count in fits.items():
        assert side_by_side(asked.model_copy(update={name: value})) == count
    assert refusal(lambda: side_by_side(asked.model_copy(update={"workers": 8}))) == (
        "resources: a trial asks for 8 workers, each with 1 CPU; this machine has 7 CPU and 2 GPU"
    )
    found = plan(toy({**TWO, "training.rounds": 4}))
    assert found.at_once == 3
    assert any("2 workers share it" in line for line in found.warnings)
    assert not any("memory:" in line for line in found.warnings)
    monkeypatch.setattr("saddlepoint.workflows.plan.peak_megabytes", lambda device: 100.0)
    monkeypatch.setattr("saddlepoint.workflows.plan.free_megabytes", lambda device, gpus: 500.0)
    found = plan(toy({**TWO, "training.rounds": 4}))  # three at once, of two workers each
    assert [line for line in found.warnings if "memory:" in line] == [
        "memory: 3 trials at once take up to 600 MB and 500 are free; 2 fit: resources.concurrency=2"
    ]
