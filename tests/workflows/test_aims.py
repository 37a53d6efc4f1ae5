"""A sweep under a bound, and one for two metrics: from the pipeline's file to the registry."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.tracking.query import children, history, sweeps
from saddlepoint.workflows.run import run
from saddlepoint.workflows.sweep import sweep

Small = Callable[..., Pipeline]
UNPRUNED = ("search.pruner=none", "search.sampler=random")


def test_what_violates_a_bound_is_neither_confirmed_nor_promoted(workplace: Path, small: Small) -> None:
    free = sweep(small("name=free", "search.trials=6", *UNPRUNED))
    best = min(free, key=lambda trial: trial.value or 0.0)
    bound = 0.9 * best.attrs["final"]["precision"]
    assert bound > 0
    change = f"objective.constraints={{precision: {{at_most: {bound}}}}}"
    done = run(small("name=bound", "search.trials=6", change, *UNPRUNED))

    assert [trial.values for trial in done.trials] == [trial.values for trial in free]  # nothing else has changed
    for trial in done.trials:
        assert trial.scores == {name: trial.attrs["final"][name] for name in ("fid", "precision")}
        assert trial.feasible == (trial.scores["precision"] <= bound)
    # what was best is infeasible now, or has kept the generator of another round
    assert not done.trials[best.number].feasible or done.trials[best.number].value != best.value
    assert any(trial.feasible for trial in done.trials)
    feasible = [trial for trial in done.trials if trial.feasible]
    retrained = [candidate for candidate in done.confirmation.candidates if candidate.name != "published defaults"]
    assert {str(candidate.values) for candidate in retrained} <= {str(trial.values) for trial in feasible}
    parent = next(run for run in sweeps(None) if run.name == "bound")
    for tracked in children(None, parent.sweep):
        if tracked.key.startswith("trial-"):
            assert [step for step, _ in history(None, tracked.run_id, "precision")] == [4, 8, 12]


def test_a_bound_that_nothing_keeps_ends_in_one_line(workplace: Path, small: Small) -> None:
    with pytest.raises(SaddleError, match="precision"):
        run(small("search.trials=2", "objective.constraints={precision: {at_least: 1.5}}", *UNPRUNED))
    assert registry.models(None, "digits-generator") == []
    [parent] = sweeps(None)
    assert parent.status == "FAILED"
    assert len([run for run in children(None, parent.sweep) if run.status == "FINISHED"]) == 2  # the trials are well


def test_two_metrics_seek_a_front_and_confirm_along_it(workplace: Path, small: Small) -> None:
    done = run(small("search.trials=6", "objective.second=coverage", "confirm.top=2", *UNPRUNED))
    scores = [(trial.scores["fid"], trial.scores["coverage"]) for trial in done.trials]
    front = {
        str(trial.values)
        for trial, (fid, coverage) in zip(done.trials, scores, strict=True)
        if not any(f <= fid and c >= coverage and (f, c) != (fid, coverage) for f, c in scores)
    }
    retrained = [str(c.values) for c in done.confirmation.candidates if c.name != "published defaults"]
    assert len(retrained) >= 1
    assert set(retrained[: len(front)]) <= front
    assert done.promotion is not None
    assert done.promotion.moved


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objective.second=fid", r"objective\.second: 'fid' is the first metric already"),
        ("objective.second=recal", r"objective\.second: 'recal' is not known; did you mean 'recall'\?"),
        ("objective.second=std_ratio", r"objective\.second: 'std_ratio' has no better direction"),
        ("objective.constraints={recal: {at_least: 1}}", r"objective\.constraints\.recal: 'recal' is not known"),
        ("objective.constraints={recall: {}}", r"objective\.constraints\.recall: .* should give at_least, at_most or"),
        ("objective.constraints={recall: {at_least: 2, at_most: 1}}", r"recall\.at_least: 2\.0 should be less than"),
        ("objective.constraints={modes: {at_least: 8}}", r"'modes'"),
        ("objective.constraints={class_share: {at_least: 0}}", r"one number for each class"),
        ("search.budget={hour: 1}", r"search\.budget: 'hour' is not known; did you mean 'hours'\?"),
        ("search.budget.hours=0", r"search\.budget\.hours: 0 should be greater than 0"),
        ("search.min_rounds=13", r"search\.min_rounds: 13 should lie within 1 to the rounds of a trial, 12"),
        (["objective.second=recall", "search.pruner=median"], r"search\.pruner: 'median' compares by one metric"),
        (["objective.second=recall", "search.sampler=cmaes"], r"search\.sampler: 'cmaes'"),
    ],
)
def test_a_wrong_aim_is_one_line_and_leaves_nothing(
    change: str | list[str], words: str, workplace: Path, small: Small
) -> None:
    changes = [change] if isinstance(change, str) else change
    with pytest.raises(UserError, match=words):
        sweep(small(*changes))
    assert list(workplace.iterdir()) == []
