"""A sweep carried on in another space, or with more rounds; and no configuration run twice."""

from collections import Counter

import optuna
import pytest

from saddlepoint.errors import UserError
from saddlepoint.metrics.objective import Objective
from saddlepoint.search import ledger as ledger_module
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.space import Space

PARAMETERS = {
    "lr": {"type": "log_float", "low": 1e-4, "high": 1e-2, "default": 1e-3},
    "width": {"type": "choice", "choices": [16, 32, 64], "default": 32},
    "depth": {"type": "int", "low": 1, "high": 4, "default": 2},
}


def space(drop=(), **changes):
    parameters = {name: parameter for name, parameter in PARAMETERS.items() if name not in drop}
    return Space.model_validate({"game": "g", "parameters": parameters | changes})


def tiny(**more):
    return Space.model_validate({"game": "g", "parameters": {"width": PARAMETERS["width"], **more}})


@pytest.fixture
def storage(monkeypatch):
    kept = optuna.storages.InMemoryStorage()
    monkeypatch.setattr(ledger_module, "open_storage", lambda url: kept)
    return kept


def open_(space=space(), **options):
    return Ledger.open(None, "s", space=space, **{"rounds": 9, "objective": Objective.of("fid")} | options)


def fid(values):
    return abs(values["lr"] - 2e-3) * 1e3 + values["width"] / 64 + values["depth"]


def drive(ledger, limit):
    while suggestion := ledger.next(limit):
        value = fid(suggestion.values)
        for step in (1, 3):
            if ledger.report(suggestion.number, step, {"fid": value * (1 + 1 / step)}):
                ledger.tell(suggestion.number, Outcome.PRUNED, reason="too slow")
                break
        else:
            ledger.tell(suggestion.number, Outcome.COMPLETE, {"fid": value})


def test_a_wider_space_keeps_every_trial_and_what_the_sampler_knows(storage):
    ledger = open_()
    drive(ledger, 10)
    ledger.set("fingerprint", "abc")
    before = ledger.trials()
    wider = space(lr=PARAMETERS["lr"] | {"high": 1e-1}, width=PARAMETERS["width"] | {"choices": [16, 32, 64, 128]})
    with pytest.raises(UserError, match=r"^space.parameters.lr.high: 0.1, but s was begun with 0.01"):
        open_(wider)
    ledger = open_(wider, extend=True)
    assert ledger.trials() == before
    assert ledger.get("fingerprint") == "abc"
    assert ledger.study.study_name == "s#2"
    # All stand there as drawn from the new space, so that no sampler passes over a parameter that has changed.
    drawn = optuna.search_space.intersection_search_space(ledger.study.trials, include_pruned=True)
    assert set(drawn) == set(PARAMETERS)
    assert drawn["lr"].high == 1e-1
    assert [t.values for t in ledger.study.trials] == [t.values for t in storage.get_all_trials(0)]
    drive(open_(wider), 40)  # the newest generation is found by itself
    records = open_(wider).trials()
    assert records[:10] == before
    assert len(records) == 40
    assert any(record.values["lr"] > 1e-2 for record in records[10:])
    assert any(record.values["width"] == 128 for record in records[10:])
    with pytest.raises(UserError, match=r"^space.parameters.lr.high: 0.01, but s was begun with 0.1"):
        open_()


def test_what_lies_outside_a_narrower_space_stays_on_record_alone(storage):
    ledger = open_()
    drive(ledger, 20)
    before = ledger.trials()
    narrow = space(lr=PARAMETERS["lr"] | {"high": 2e-3}, depth={"type": "fixed", "value": 2})
    ledger = open_(narrow, extend=True)
    inside = [record.values["lr"] <= 2e-3 and record.values["depth"] == 2 for record in before]
    assert 0 < sum(inside) < 20
    for old, new, lies_inside, trial in zip(before, ledger.trials(), inside, ledger.study.trials, strict=True):
        assert new.inside == lies_inside
        assert (new.values, new.state, new.scores, new.curves) == (old.values, old.state, old.scores, old.curves)
        assert (new.started, new.ended, new.reason, new.seed) == (old.started, old.ended, old.reason, old.seed)
        if not lies_inside:
            assert (trial.state.name, trial.params) == ("FAIL", {})
    assert all(record.inside for record in ledger.best(20) + ledger.front())
    drive(ledger, 24)
    assert all(record.values["depth"] == 2 and record.values["lr"] <= 2e-3 for record in ledger.trials()[20:])
    again = open_(extend=True)  # back to the first space: nothing was forgotten
    assert all(record.inside for record in again.trials())
    assert again.trials()[:20] == before
    assert again.study.trials[3].params == storage.get_all_trials(0)[3].params


def test_added_and_removed_parameters_have_their_defaults(storage):
    ledger = open_()
    for depth in (2, 3):
        ledger.enqueue({"lr": 1e-3, "width": 16, "depth": depth}, seed=depth)
    drive(ledger, 0)
    beta = {"type": "float", "low": 0.0, "high": 0.9, "default": 0.5}
    other = space(drop=["depth"], beta=beta)
    ledger = open_(other, extend=True)
    assert [record.inside for record in ledger.trials()] == [True, False]  # depth 3 is what nobody would run now
    assert ledger.trials()[0].values == {"lr": 1e-3, "width": 16, "beta": 0.5}
    assert ledger.trials()[1].values == {"lr": 1e-3, "width": 16, "depth": 3}
    ledger.enqueue({"lr": 1e-3, "width": 16, "beta": 0.5}, seed=2)
    assert len(ledger.trials()) == 2  # still known as queued


def test_unfinished_trials_go_on_if_they_lie_inside(storage):
    ledger = open_()
    ledger.enqueue({"lr": 1e-3, "width": 16, "depth": 1}, seed=11)
    ledger.enqueue({"lr": 5e-3, "width": 64, "depth": 1}, seed=12)
    ledger.enqueue({"lr": 1e-3, "width": 32, "depth": 1}, seed=13)
    ledger.enqueue({"lr": 6e-3, "width": 64, "depth": 1}, seed=14)
    begun = [ledger.next(0), ledger.next(0)]
    ledger.report(begun[0].number, 1, {"fid": 3.0})
    ledger = open_(space(lr=PARAMETERS["lr"] | {"high": 2e-3}), extend=True)
    assert [record.state for record in ledger.trials()] == ["running", "pruned", "waiting", "pruned"]
    assert ledger.trials()[1].reason == ledger.trials()[3].reason == "outside the changed space"
    assert ledger.trials()[0].intermediate == {1: 3.0}
    again = [ledger.next(0), ledger.next(0)]
    assert [(s.number, s.seed, s.resumed, s.values["width"]) for s in again] == [(0, 11, True, 16), (2, 13, False, 32)]
    assert ledger.next(0) is None


def test_a_trial_in_mid_run_begins_anew_when_there_are_more_rounds(storage):
    ledger = open_(sampler="random", pruner="none")
    drive(ledger, 2)
    begun = ledger.next(4)
    ledger.report(begun.number, 3, {"fid": 5.0})
    untouched = ledger.next(4)
    ledger = open_(rounds=27, extend=True, sampler="random", pruner="none")
    records = ledger.trials()
    for suggestion in (begun, untouched):
        record = records[suggestion.number]
        assert (record.state, record.values) == ("pruned", suggestion.values)
        assert record.reason == "begun for 9 rounds, where 27 are wanted now"
    assert records[begun.number].intermediate == {3: 5.0}
    again = [ledger.next(4), ledger.next(4)]
    assert [(s.number, s.values, s.resumed) for s in again] == [(4, begun.values, False), (5, untouched.values, False)]
    assert [record.attrs for record in ledger.trials()[4:]] == [{"longer": begun.number}, {"longer": untouched.number}]
    assert ledger.next(4) is None


def test_more_rounds_for_the_best(storage):
    ledger = open_(sampler="random")
    drive(ledger, 12)
    before = ledger.trials()
    best = ledger.best(2)
    with pytest.raises(UserError, match=r"^rounds: 27, but s was begun with 9"):
        open_(rounds=27)
    for _ in range(2):  # the same command again does nothing more
        ledger = open_(rounds=27, extend=True, longer=2, sampler="random")
        records = ledger.trials()
        assert [record.state for record in records[12:]] == ["waiting"] * 2
    assert [record.values for record in records[12:]] == [record.values for record in best]
    assert [record.attrs for record in records[12:]] == [{"longer": record.number} for record in best]
    for old, new, trial in zip(before, records, ledger.study.trials, strict=False):
        if old.state == "complete":
            assert (new.state, new.value) == ("pruned", None)
            assert new.reason == "complete after 9 rounds, where 27 are wanted now"
            assert new.intermediate == old.intermediate | {9: old.value} == trial.intermediate_values
            assert trial.state.name == "PRUNED"
        else:
            assert new == old
    assert ledger.best() == []
    assert ledger.spent_rounds() == sum(9 if r.state == "complete" else max(r.intermediate) for r in before)
    # They count at the rungs: whoever is worse at 9 rounds than the best third of these stops there.
    first = ledger.next(0).number
    assert ledger.report(first, 9, {"fid": 1e3})
    with pytest.raises(UserError, match=r"^training.rounds: 9, but s was begun with 27; it can be extended to more"):
        open_(rounds=9, extend=True)


def test_only_space_and_rounds_can_change(storage):
    open_()
    with pytest.raises(UserError, match=r"^seed: 4, but s was begun with 0"):
        open_(seed=4, extend=True)
    with pytest.raises(UserError, match=r"^objective: "):
        open_(objective=Objective.of("fid", "recall"), extend=True)


def finish(ledger, suggestion, outcome=Outcome.COMPLETE):
    ledger.tell(suggestion.number, outcome, {"fid": float(suggestion.values["width"])})


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes"])
def test_no_configuration_runs_twice_and_a_small_space_is_exhausted(storage, sampler):
    ledger = open_(tiny(), sampler=sampler)
    ran = []
    while suggestion := ledger.next(50):
        ran.append(suggestion.values["width"])
        finish(ledger, suggestion)
    assert sorted(ran) == [16, 32, 64]
    assert ledger.exhausted
    records = ledger.trials()
    twins = [record for record in records if record.state == "duplicate"]
    assert len(twins) == len(records) - 3
    for record in twins:
        first = next(r for r in records if r.values == record.values)
        assert record.reason == f"the same values as trial {first.number}"
        assert first.number < record.number
    written = len(records)
    again = open_(tiny(), sampler=sampler)
    assert again.exhausted
    assert again.next(100) is None
    assert len(again.trials()) == written
    wider = tiny(depth=PARAMETERS["depth"])
    again = open_(wider, sampler=sampler, extend=True)
    assert not again.exhausted
    assert again.next(4).values.keys() == {"width", "depth"}


def test_duplicates_do_not_count_and_queued_ones_are_none(storage):
    ledger = open_(tiny(), sampler="random")
    while suggestion := ledger.next(3):
        finish(ledger, suggestion)
    states = Counter(record.state for record in ledger.trials())
    assert states["complete"] == 3
    assert states["duplicate"] == len(ledger.trials()) - 3 > 0
    ledger.enqueue({"width": 32}, seed=5)
    assert ledger.next(0).values == {"width": 32}


def test_a_failed_configuration_may_be_tried_again_a_diverged_one_not(storage):
    ledger = open_(tiny(), sampler="random")
    ends = {16: Outcome.FAILED, 32: Outcome.DIVERGED, 64: Outcome.OUT_OF_MEMORY}
    ran = Counter()
    for _ in range(8):
        suggestion = ledger.next(50)
        if suggestion is not None:
            ran[suggestion.values["width"]] += 1
            finish(ledger, suggestion, ends[suggestion.values["width"]])
            ledger = open_(tiny(), sampler="random")
    assert ran[32] == ran[64] == 1
    assert ran[16] == 6
