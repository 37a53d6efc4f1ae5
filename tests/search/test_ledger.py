"""The ledger, driven by a simulator: whole searches over tabulated learning curves, nothing is trained."""

import math
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import event

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search import ledger as ledger_module
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.space import Space

ROUNDS = 9
SPACE = Space.model_validate(
    {
        "game": "wgan",
        "parameters": {
            "lr": {"type": "log_float", "low": 1e-5, "high": 1e-1, "default": 5e-5},
            "clip": {"type": "log_float", "low": 0.003, "high": 0.3, "default": 0.01},
            "n_critic": {"type": "choice", "choices": [1, 2, 5], "default": 5},
            "decay": {"type": "fixed", "value": "linear"},
        },
    }
)


def curve(values, rounds):
    """A learning curve in closed form: NaN where lr exceeds clip, otherwise falling with the rounds."""
    if values["lr"] > values["clip"]:
        return math.nan
    distance = abs(math.log10(values["lr"]) + 3) + abs(math.log10(values["clip"]) + 1.4)
    return 10 * (distance + 0.1 * abs(values["n_critic"] - 5)) * (1 + 3 / rounds) + 1


def run(ledger, suggestion, rounds=ROUNDS):
    """One trial as a driver runs it."""
    for step in range(1, rounds + 1):
        value = curve(suggestion.values, step)
        if not math.isfinite(value):
            return ledger.tell(suggestion.number, Outcome.DIVERGED, reason="NaN in the critic's loss")
        if ledger.report(suggestion.number, step, {"fid": value}):
            return ledger.tell(suggestion.number, Outcome.PRUNED)
    ledger.tell(suggestion.number, Outcome.COMPLETE, {"fid": value})


def drive(ledger, limit):
    handed = []
    while suggestion := ledger.next(limit):
        handed.append(suggestion)
        run(ledger, suggestion)
    return handed


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def open_(url, study="sweep", **options):
    return Ledger.open(url, study, **{"space": SPACE, "rounds": ROUNDS, "objective": Objective.of("fid")} | options)


def test_a_whole_search_on_a_table():
    ledger = open_(None, seed=1)
    handed = drive(ledger, 16)
    records = ledger.trials()

    assert [suggestion.number for suggestion in handed] == list(range(16))
    assert handed[0].values == SPACE.defaults() == records[0].values
    assert [record.values for record in records] == [suggestion.values for suggestion in handed]
    assert [record.seed for record in records] == [suggestion.seed for suggestion in handed]
    assert not any(suggestion.resumed for suggestion in handed)

    states = Counter(record.state for record in records)
    assert set(states) == {"complete", "pruned", "diverged"}
    for record in records:
        diverges = record.values["lr"] > record.values["clip"]
        assert (record.state == "diverged") == diverges
        assert (record.reason == "NaN in the critic's loss") == diverges
        assert record.started <= record.ended
        if record.state == "complete":
            assert record.value == curve(record.values, ROUNDS)
            assert record.intermediate == {step: curve(record.values, step) for step in range(1, ROUNDS + 1)}
        else:
            assert record.value is None
            assert max(record.intermediate, default=0) in (
                0,
                1,
                3,
            )  # stopped at a rung: 1/9 or 1/3 of the rounds

    (best,) = ledger.best()
    assert best.value == min(record.value for record in records if record.state == "complete")
    assert best.value < records[0].value / 2  # far better than the defaults


def test_successive_halving_prunes_who_is_outside_the_best_third(url):
    ledger = open_(url, sampler="random")
    arrivals = [5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 2.0]
    # Rung 1 of ASHA, eta = 3: who goes on must be among the best max(1, n // 3) of the n that have come so
    # far.
    kept = []
    for value in arrivals:
        number = ledger.next(100).number
        kept.append(not ledger.report(number, 1, {"fid": value}))
    assert kept == [True, False, True, False, True, True, True]
    # The decisions stand in the database: whoever opens it again goes on from the same rungs.
    ledger = open_(url, sampler="random")
    for expected in [5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 2.0]:
        number = ledger.next(100).number
        assert ledger.trials()[number].intermediate == {1: expected}
    assert ledger.report(ledger.next(100).number, 1, {"fid": 3.2})
    assert not ledger.report(ledger.next(100).number, 1, {"fid": 1.0})


def test_a_trial_at_its_last_round_is_not_pruned():
    ledger = open_(None, sampler="random")
    for value in (1.0, 2.0):
        number = ledger.next(9).number
        assert not ledger.report(number, ROUNDS, {"fid": value})
        ledger.tell(number, Outcome.COMPLETE, {"fid": value})
    assert [record.state for record in ledger.trials()] == ["complete", "complete"]


def test_larger_is_better_when_told_so():
    ledger = open_(None, sampler="random", objective=Objective.of("recall"))
    for value in (1.0, 3.0, 2.0):
        ledger.tell(ledger.next(9).number, Outcome.COMPLETE, {"recall": value})
    assert ledger.best()[0].number == 1
    assert not ledger.report(ledger.next(9).number, 1, {"recall": 5.0})
    assert ledger.report(ledger.next(9).number, 1, {"recall": 4.0})


def test_what_is_not_finite_is_never_stored(url, tmp_path):
    ledger = open_(url)
    first, second, third = (ledger.next(3).number for _ in range(3))
    for step, value in enumerate([2.0, math.nan, math.inf, -math.inf], start=1):
        assert not ledger.report(first, step, {"fid": value})
    ledger.tell(first, Outcome.COMPLETE, {"fid": math.nan})
    ledger.tell(second, Outcome.DIVERGED, {"fid": math.inf}, reason="Inf in a weight")
    ledger.tell(third, Outcome.COMPLETE, None)

    assert [(r.state, r.reason, r.value) for r in ledger.trials()] == [
        ("diverged", "fid is nan", None),
        ("diverged", "Inf in a weight", None),
        ("diverged", "fid is nan", None),
    ]
    assert ledger.trials()[0].intermediate == {1: 2.0}
    assert ledger.best() == []
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        dump = "\n".join(database.iterdump()).lower()
    assert 'insert into "trial_intermediate_values"' in dump
    assert "nan" not in dump.replace("fid is nan", "")
    assert "infinity" not in dump
    assert "inf_" not in dump.split("insert into")[-1]


def test_nothing_is_lost_and_nothing_runs_twice_when_the_driver_dies(url):
    ledger = open_(url, pruner="none")
    for _ in range(3):
        run(ledger, ledger.next(6))
    begun = [ledger.next(6), ledger.next(6)]
    ledger.report(begun[0].number, 1, {"fid": 7.0})
    ledger.note(begun[0].number, run_id="abc", host="here")
    before = ledger.trials()

    ledger = open_(url, pruner="none")
    assert ledger.trials() == before  # to open it changes nothing
    again = [ledger.next(6), ledger.next(6)]
    assert [(s.number, s.values, s.seed, s.resumed) for s in again] == [
        (s.number, s.values, s.seed, True) for s in begun
    ]
    assert not ledger.report(begun[0].number, 1, {"fid": 99.0})  # repeated by the resumed trial: the first one counts
    record = ledger.trials()[begun[0].number]
    assert (record.intermediate, record.run_id, record.attrs) == (
        {1: 7.0},
        "abc",
        {"run_id": "abc", "host": "here"},
    )
    for suggestion in again:
        run(ledger, suggestion)
    assert [suggestion.number for suggestion in drive(ledger, 6)] == [5]
    assert ledger.next(6) is None
    assert [r.state in ("complete", "diverged") for r in ledger.trials()] == [True] * 6


def test_a_pruned_trial_killed_before_it_was_told_is_pruned_again(url):
    ledger = open_(url, sampler="random")
    assert not ledger.report(ledger.next(9).number, 1, {"fid": 1.0})
    pruned = ledger.next(9).number
    assert ledger.report(pruned, 1, {"fid": 2.0})
    ledger = open_(url, sampler="random")
    assert [ledger.next(9).number for _ in range(2)] == [0, pruned]
    assert ledger.report(pruned, 1, {"fid": 2.0})
    assert ledger.report(pruned, 2, {"fid": 2.0})


@pytest.mark.parametrize(
    ("outcome", "value"),
    [(Outcome.COMPLETE, 2.5), (Outcome.PRUNED, None), (Outcome.DIVERGED, None), (Outcome.FAILED, None)],
)
def test_a_trial_told_by_halves_is_ended_in_the_next_life(url, monkeypatch, outcome, value):
    ledger = open_(url)
    number = ledger.next(2).number
    ledger.report(number, 1, {"fid": 3.0})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger_module, "settle", die)
    with pytest.raises(KeyboardInterrupt):
        ledger.tell(number, outcome, {"fid": value}, reason="as told")
    monkeypatch.undo()

    ledger = open_(url)
    assert ledger.trials()[number].state == "running"
    assert ledger.next(2).number == number + 1
    record = ledger.trials()[number]
    assert (record.state, record.value, record.reason) == (outcome.value, value, "as told")


def test_a_trial_that_has_ended_stays_as_it_is():
    ledger = open_(None)
    number = ledger.next(2).number
    ledger.tell(number, Outcome.COMPLETE, {"fid": 2.0})
    ledger.tell(number, Outcome.FAILED, reason="late")
    assert ledger.report(number, 5, {"fid": 1.0})
    record = ledger.trials()[number]
    assert (record.state, record.value, record.intermediate, record.reason) == ("complete", 2.0, {}, None)
    with pytest.raises(SaddleError, match="has ended"):
        ledger.note(number, run_id="x")
    with pytest.raises(SaddleError, match="no trial 9"):
        ledger.tell(9, Outcome.FAILED)


DRIVER = """
import sys, time
sys.path.insert(0, {here!r})
import importlib.util
spec = importlib.util.spec_from_file_location("simulator", {file!r})
simulator = importlib.util.module_from_spec(spec); spec.loader.exec_module(simulator)
ledger = simulator.open_({url!r})
print("open", flush=True)
while sys.stdin.readline() and (suggestion := ledger.next({limit})):
    simulator.run(ledger, suggestion)
    print("told", flush=True)
"""


def test_kill_9_again_and_again(url, tmp_path):
    """The process that drives the sweep is killed at arbitrary instants; the ledger stays whole."""
    limit, seen = 30, {}
    for life in range(3):
        script = DRIVER.format(here=str(tmp_path), file=__file__, url=url, limit=limit)
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
            # Seven trials at most in each life, so that no machine is fast enough to finish before it is killed.
            driver.stdin.write(b"next\n" * 7)
            driver.stdin.flush()
            for _ in range(4):  # "open", and three trials
                driver.stdout.readline()
            time.sleep(0.005 + 0.011 * life)
            driver.kill()
        records = open_(url).trials()
        assert [record.number for record in records] == list(range(len(records)))
        assert sum(record.state == "running" for record in records) <= 1
        for record in records:
            if record.state not in ("waiting", "running"):
                assert seen.setdefault(record.number, record) == record  # what has ended never changes
    assert 9 <= len(seen) <= 21
    assert 9 <= len(seen) <= 21
    resumed = drive(open_(url), limit)
    ledger = open_(url)
    assert [record.number for record in ledger.trials()] == list(range(limit))
    assert all(record.state in ("complete", "pruned", "diverged") for record in ledger.trials())
    assert not seen.keys() & {suggestion.number for suggestion in resumed}
    # One that was killed while it was being told is ended from what was told, and not run again.
    assert len(seen) + len(resumed) in (limit - 1, limit)
    assert len({suggestion.number for suggestion in resumed}) == len(resumed)
    assert all(ledger.trials()[number] == record for number, record in seen.items())


def test_queued_configurations_run_once_each_on_their_seeds(url):
    chosen = {"lr": 1e-3, "clip": 0.04, "n_critic": 2, "decay": "linear"}
    for _ in range(2):  # also when a later process queues them again
        ledger = open_(url, "confirm", pruner="none")
        for seed in (101, 102):
            ledger.enqueue(chosen, seed=seed, attrs={"of": 7})
        assert [r.state for r in ledger.trials()] == ["waiting"] * 2
        assert [r.values for r in ledger.trials()] == [chosen] * 2
    first = ledger.next(0)
    assert (first.number, first.values, first.seed, first.resumed) == (0, chosen, 101, False)
    ledger = open_(url, "confirm", pruner="none")
    ledger.enqueue(chosen, seed=101)
    assert [(s.seed, s.resumed) for s in drive(ledger, 0)] == [(101, True), (102, False)]
    assert ledger.next(0) is None
    assert {r.attrs["of"] for r in ledger.trials()} == {7}
    ledger.enqueue(chosen | {"n_critic": 5})
    assert ledger.next(0).values["n_critic"] == 5


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"lr": 1.0}, "values.lr: 1.0 lies outside"),
        ({"n_critic": 3}, "values.n_critic: 3 lies outside"),
        ({"decay": "none"}, "values.decay: 'none' lies outside"),
        ({"clop": 0.1}, "'clop' is not known; did you mean 'clip'?"),
    ],
)
def test_what_is_queued_must_lie_in_the_space(change, line):
    with pytest.raises(UserError) as caught:
        open_(None).enqueue(SPACE.defaults() | change)
    assert line in str(caught.value)
    with pytest.raises(UserError, match="values: lr is missing"):
        open_(None).enqueue({})


def test_a_finished_sweep_can_be_extended(url):
    drive(open_(url), 3)
    assert open_(url).next(3) is None
    assert [s.number for s in drive(open_(url), 5)] == [3, 4]


def test_every_trial_has_its_own_training_seed(url):
    seeds = [s.seed for s in drive(open_(url), 4)] + [s.seed for s in drive(open_(url), 8)]
    assert len(set(seeds)) == 8
    assert seeds == [s.seed for s in drive(open_(None), 8)]
    assert not set(seeds) & {s.seed for s in drive(open_(None, seed=1), 8)}


def test_a_sweep_goes_on_only_as_it_was_begun(url):
    open_(url).next(1)
    wider = SPACE.model_dump()
    wider["parameters"]["lr"]["high"] = 1.0
    with pytest.raises(UserError, match=r"^space.parameters.lr.high: 1.0, but sweep was begun with 0.1"):
        open_(url, space=Space.model_validate(wider))
    with pytest.raises(UserError, match=r"^seed: 5, but sweep was begun with 0"):
        open_(url, seed=5)
    with pytest.raises(UserError, match=r"^objective: \['recall'\], but sweep was begun with \['fid'\]"):
        open_(url, objective=Objective.of("recall"))
    with pytest.raises(UserError, match=r"^constraints.recall: \[0.5, None\], but sweep was begun with None"):
        open_(url, objective=Objective.of("fid", None, Bound("recall", at_least=0.5)))
    with pytest.raises(UserError, match=r"^rounds: 18, but sweep was begun with 9"):
        open_(url, rounds=18)
    open_(url, "another", seed=5)


def test_notes_on_the_whole_sweep(url):
    open_(url).set("fingerprint", {"a": [1, 2]})
    assert open_(url).get("fingerprint") == {"a": [1, 2]}
    assert open_(url).get("other", "none") == "none"


def test_the_work_per_trial_does_not_grow_with_the_sweep(url):
    """Counted in statements to the database, so that a busy machine does not matter."""
    ledger = open_(url, pruner="none")
    statements = []
    engine = ledger.study._storage.behind._backend.engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def cost(limit):
        statements.clear()
        drive(ledger, limit)
        return len(statements)

    cost(10)
    early = cost(20)
    cost(40)
    assert cost(50) == pytest.approx(early, rel=0.1)


def test_another_thread_may_read_while_one_drives(url):
    ledger = open_(url)
    done, seen, failures = threading.Event(), [], []

    def read():
        try:
            while not done.is_set():
                seen.append(len(ledger.trials()))
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    drive(ledger, 8)
    done.set()
    reader.join()
    assert not failures
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
