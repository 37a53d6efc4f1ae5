"""A population on real digits: the same trials however often it is interrupted, and schedules that can be confirmed."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from saddlepoint.generator import load_generator
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import TrialRecord
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.query import TrackedRun, children, history, sweeps
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.confirm import Confirmation, confirm
from saddlepoint.workflows.generations import population_of
from saddlepoint.workflows.plan import plan
from saddlepoint.workflows.reconcile import reconcile
from saddlepoint.workflows.sweep import Interrupted, opened, sweep
from saddlepoint.workflows.trial import Order, work

from .conftest import in_process

Small = Callable[..., Pipeline]
RATES = """
game: wgan
parameters:
  lr_critic:    {type: log_float, low: 1e-5, high: 1e-2, default: 5e-5}
  lr_generator: {type: log_float, low: 1e-5, high: 1e-2, default: 5e-5}
  clip:         {type: log_float, low: 0.003, high: 0.32, default: 0.01}
"""


@pytest.fixture
def peopled(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A population of 4 on the small pipeline: 3 generations of 4 rounds."""
    (workplace / "rates.yaml").write_text(RATES)

    def build(*changes: str) -> Pipeline:
        return Pipeline.load("digits-wgan", [
            "training.rounds=12", "training.evaluate_every=4", "training.log_every=2", "training.batch_size=32",
            "networks.generator.widths=[16]", "networks.critic.widths=[16]", "confirm.top=1", "confirm.seeds=2",
            "confirm.draws=2", f"search={{space: {workplace / 'rates.yaml'}, sampler: random, keep: 2, "
            "population: {members: 4, every: 4, resample: 0.5}}", *changes,
        ])  # fmt: skip

    return build


def tracked() -> dict[str, TrackedRun]:
    [parent] = sweeps(None)
    return {run.key: run for run in children(None, parent.sweep)}


def told(trials: list[TrialRecord]) -> list[Any]:
    attrs = ("member", "generation", "parent", "begins", "final", "best_round")
    return [
        (t.number, t.values, t.seed, t.state, t.scores, t.curves, {key: t.attrs.get(key) for key in attrs})
        for t in trials
    ]


def places(root: Path, *, checkpoint: bool = False) -> set[int]:
    folders = (root / "sweeps" / "digits-wgan" / "trials").glob("0*")
    return {int(folder.name) for folder in folders if not checkpoint or (folder / CHECKPOINT).exists()}


@pytest.mark.slow
def test_interrupted_anywhere_it_ends_as_if_it_never_was(
    workplace: Path, peopled: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(peopled())
    assert len(whole) == 12
    assert {tuple(trial.intermediate) for trial in whole} == {(4,), (8,), (12,)}
    runs = tracked()
    generations = [[t for t in whole if t.attrs.get("generation", 0) == g] for g in range(3)]
    assert [len(generation) for generation in generations] == [4, 4, 4]
    for trial in whole:
        run = runs[f"trial-{trial.number:04d}"]
        generation = trial.number // 4
        assert run.tags["saddle.member"] == str(trial.number % 4)
        assert run.tags["saddle.generation"] == str(generation)
        assert run.tags.get("saddle.parent_trial") == (str(trial.attrs["parent"]) if generation else None)
        steps = [step for step, _ in history(None, run.run_id, "emd")]
        assert steps == [4 * generation + 2, 4 * generation + 4]  # its curves begin where its piece begins
        assert run.status == "FINISHED"
        before = whole[trial.attrs["parent"]].attrs["line_seconds"] if generation else 0.0
        assert 0 < trial.attrs["line_seconds"] - before <= trial.attrs["seconds"]  # its own, with its final scores
        assert (trial.attrs["parent"] // 4 if generation else -1) == generation - 1
    [best, second] = sorted(whole, key=lambda trial: (trial.value, trial.number))[:2]
    assert places(workplace) == {best.number, second.number}
    assert places(workplace, checkpoint=True) == set()

    # Ctrl-C after a few reports, again and again, and a death between two of a generation's trials
    (workplace / "again").mkdir()
    monkeypatch.chdir(workplace / "again")
    monkeypatch.setattr(sweep_room, "execute", partial(in_process, interrupt_after=7))
    enqueue, calls = Ledger.enqueue, []

    def mortal(self: Ledger, *arguments: Any, **named: Any) -> None:
        calls.append(named["attrs"]["member"])
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        enqueue(self, *arguments, **named)

    monkeypatch.setattr(Ledger, "enqueue", mortal)
    lives = 0
    while True:
        lives += 1
        try:
            broken = sweep(peopled())
            break
        except (Interrupted, KeyboardInterrupt):
            trials = places(workplace / "again", checkpoint=True)
            assert len(trials) <= 5  # of 4 members, and one that is in mid-run
    assert lives == 5  # 24 reports, 7 a life; and the death
    assert told(broken) == told(whole)  # bit for bit
    assert {key: run.status for key, run in tracked().items()} == {key: run.status for key, run in runs.items()}
    assert {key: history(None, run.run_id, "fid") for key, run in tracked().items()} == {
        f"trial-{trial.number:04d}": sorted(trial.intermediate.items()) for trial in whole
    }


def confirmed(pipeline: Pipeline) -> Confirmation:
    with opened(pipeline) as at:
        return confirm(at)


@pytest.mark.slow
def test_a_schedule_is_confirmed_on_fresh_seeds_also_when_interrupted(
    workplace: Path, peopled: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = peopled("search.population.quantile=0.5", "search.population.resample=1.0")
    trials = sweep(pipeline)
    population = population_of(pipeline)
    assert population is not None
    final = population.finalists(trials, trials)[0]
    line = population.schedule(trials, final.number)
    assert final.number >= 8

    with monkeypatch.context() as cut:
        cut.setattr(sweep_room, "execute", partial(in_process, interrupt_after=2))
        with pytest.raises(Interrupted):
            confirmed(pipeline)
    result = confirmed(pipeline)
    winner, defaults = sorted(result.candidates, key=lambda candidate: candidate.name == "published defaults")
    assert len(line) > 1
    assert winner.name == f"trial {final.number} (a schedule of {len(line)} pieces)"
    assert winner.values == final.values
    assert [tuple(piece) for piece in winner.schedule] == line
    assert defaults.schedule == []
    assert len(winner.scores) == len(defaults.scores) == 2
    assert not set(winner.seeds) & {trial.seed for trial in trials}
    for folder, key, seed in zip(winner.folders, winner.keys, winner.seeds, strict=True):
        run = tracked()[key]
        assert [step for step, _ in history(None, run.run_id, "fid")] == [4, 8, 12]
        assert json.loads(run.tags["saddle.schedule"]) == [list(piece) for piece in line]
        assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == []
        told: list[dict[str, Any]] = []
        before = tuple((until, pipeline.with_values(values).content()) for until, values in line[:-1])
        last = pipeline.with_values(line[-1][1]).content()
        work(Order(last, seed, str(workplace / "alone" / key), before=before), told.append)
        assert weights(workplace / "alone" / key) == weights(folder)
        constant = workplace / "constant" / key
        work(Order(last, seed, str(constant)), told.append)
        assert weights(constant) != weights(folder)  # the schedule is not its last values
    assert json.loads((workplace / "sweeps/digits-wgan/confirmation.json").read_text())["candidates"][0]["name"] in (
        winner.name,
        defaults.name,
    )


def weights(folder: Path) -> list[list[float]]:
    return [tensor.flatten().tolist() for tensor in load_generator(folder).networks["generator"].state_dict().values()]


def schedule_of(toy: Small, folder: Path, ends: tuple[int, ...] = (4, 8)) -> Order:
    rates = (2e-3, 1e-3, 5e-4)
    contents = [toy({"lr_critic": rate, "lr_generator": rate}).content() for rate in rates[: len(ends) + 1]]
    return Order(contents[-1], 3, str(folder), before=tuple(zip(ends, contents[:-1], strict=True)))


def test_a_replay_is_one_training_whenever_it_was_killed(toy: Small, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    work(schedule_of(toy, tmp_path / "whole"), heard.append)
    assert [(report["round"], report["final"]) for report in heard] == [(4, False), (8, False), (12, False), (12, True)]
    assert [round for report in heard for round, _ in report["trace"]] == [3, 6, 9, 12]

    class Killed(BaseException):
        pass

    for dies_at in range(4):
        order = schedule_of(toy, tmp_path / str(dies_at))
        again: list[dict[str, Any]] = []

        def die(report: dict[str, Any], again: list[dict[str, Any]] = again, dies_at: int = dies_at) -> None:
            if len(again) == dies_at:
                raise Killed
            again.append(report)

        with pytest.raises(Killed):
            work(order, die)
        work(order, again.append)
        assert [(report["round"], report["metrics"]) for report in again] == [
            (report["round"], report["metrics"]) for report in heard
        ]  # nothing that was taken is said again
        assert weights(Path(order.folder)) == weights(tmp_path / "whole")
        assert not list(Path(order.folder).glob("*piece*"))


def test_pieces_of_equal_values_are_the_whole(toy: Small, tmp_path: Path) -> None:
    content = toy().content()
    work(Order(content, 3, str(tmp_path / "whole")), lambda report: None)
    work(Order(content, 3, str(tmp_path / "pieces"), before=((4, content),)), lambda report: None)
    assert weights(tmp_path / "pieces") == weights(tmp_path / "whole")
    work(Order(content, 3, str(tmp_path / "a"), until=4), lambda report: None)
    heard: list[dict[str, Any]] = []
    work(Order(content, 3, str(tmp_path / "b"), inherit=str(tmp_path / "a")), heard.append)
    assert [report["round"] for report in heard] == [8, 12, 12]
    assert weights(tmp_path / "b") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_spent_budget_lets_the_generation_end_and_begins_none(workplace: Path, peopled: Small) -> None:
    trials = sweep(peopled("search.budget.rounds=20"))  # 4 members x 4 rounds, and 4 more in the next generation
    assert [trial.state for trial in trials] == ["complete"] * 8
    assert places(workplace, checkpoint=True) == {4, 5, 6, 7}  # who may be gone on from
    told_before = tracked()
    assert not [line for line in reconcile("digits-wgan").repaired if "trial-" in line]
    assert places(workplace, checkpoint=True) == {4, 5, 6, 7}
    assert tracked() == told_before
    longer = sweep(peopled("search.budget.rounds=40"))  # 32 are spent, and not the 48 up to which the pieces came
    assert told(longer)[:8] == told(trials)
    assert len(longer) == 12


def test_a_member_that_diverges_is_replaced(workplace: Path, peopled: Small) -> None:
    (workplace / "wild.yaml").write_text(
        "game: wgan\nparameters:\n  lr_generator: {type: choice, choices: [1.0e-4, 1.0e+30], default: 1.0e-4}\n"
        "  clip: {type: log_float, low: 0.003, high: 0.32, default: 0.01}\n"
    )
    trials = sweep(peopled(f"search.space={workplace / 'wild.yaml'}", "search.population.resample=1.0"))
    states = [trial.state for trial in trials]
    assert len(trials) == 12
    assert "diverged" in states
    assert states.count("complete") >= 6
    for trial in trials[4:]:
        assert trials[trial.attrs["parent"]].state == "complete"


@pytest.mark.slow
def test_a_cap_on_the_disk_holds_and_a_smaller_one_is_refused(
    workplace: Path, peopled: Small, refusal: Callable[[Callable[[], object]], str]
) -> None:
    whole = told(sweep(peopled()))
    said = refusal(lambda: sweep(peopled("name=capped", "search.disk_gb=1e-6")))
    assert said.startswith("search.disk_gb: 1e-06 GB do not hold a population of 4 members")
    needed = float(said.partition("up to ")[2].partition(" GB")[0])
    capped = sweep(peopled("name=capped2", f"search.disk_gb={1.01 * needed}"))
    assert told(capped) == whole


def test_what_a_population_decides_is_not_given_beside_it(
    peopled: Small, refusal: Callable[[Callable[[], object]], str]
) -> None:
    pipeline = peopled()
    assert pipeline.search is not None
    assert (pipeline.search.trials, pipeline.search.pruner) == (12, "none")
    assert Pipeline.parse(pipeline.content()) == pipeline  # as it is read back from its file
    assert Pipeline.parse(pipeline.content()).fingerprint() == pipeline.fingerprint()
    assert peopled("training.rounds=20").search.trials == 20  # type: ignore[union-attr]
    assert peopled("search.population.every=8").search.trials == 8  # type: ignore[union-attr]

    def said(*changes: str) -> str:
        return refusal(lambda: peopled(*changes))

    assert said("search.trials=20").startswith("search.trials: 20 does not go with search.population, whose 4 members")
    assert said("search.pruner=median").startswith("search.pruner: median does not go with search.population")
    assert said("search.seeds=2").startswith("search.seeds: 2 does not go with search.population")
    assert "search.population.every: 6 should be a multiple of training.evaluate_every, 4" in said(
        "search.population.every=6"
    )
    assert "less than training.rounds, 12" in said("search.population.every=12")
    assert "search.population.members: 3 should be greater than or equal to 4" in said("search.population.members=3")
    assert said("search.space=wgan").startswith("search.population: n_critic is no hyperparameter of the game")
    assert said("objective.second=recall").startswith("search.population: ranks by one metric")


def test_the_plan_counts_members_generations_and_rounds(workplace: Path, peopled: Small) -> None:
    found = plan(peopled("training.rounds=108", "search.population.every=12", "resources.concurrency=1"))
    assert (found.members, found.generations, found.trials, found.rounds) == (4, 9, 36, 12)
    assert found.expected_rounds == 4 * 108
    assert found.rungs == {}
    assert found.longest_seconds == pytest.approx(found.expected_seconds)
    assert found.longest_seconds / found.trial_seconds * 12 == pytest.approx((4 + found.retrainings) * 108, rel=1e-6)


@pytest.fixture(autouse=True)
def _torch_stream() -> Iterator[None]:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
