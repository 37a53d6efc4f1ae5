"""A population: its decisions one by one, what they are good for, and that no kill changes them."""

import math
from collections import Counter
from dataclasses import replace
from statistics import median

import pytest
import torch

from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.randomness import stream
from saddlepoint.search import ledger as ledger_module
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.population import Population, drawn, perturbed
from saddlepoint.search.records import Outcome
from saddlepoint.space import Choice, FloatRange, IntRange, Space
from saddlepoint.spec import PopulationSpec

from .test_survival import Killed, Mortal

RATE = Space.model_validate(
    {"game": "g", "parameters": {"rate": {"type": "log_float", "low": 1e-3, "high": 1.0, "default": 0.01}}}
)
MIXED = Space.model_validate(
    {
        "game": "g",
        "parameters": {
            "rate": {"type": "log_float", "low": 0.01, "high": 0.1, "default": 0.05},
            "steps": {"type": "int", "low": 1, "high": 6, "default": 2},
            "kind": {"type": "choice", "choices": ["a", "b", "c"], "default": "a"},
            "slope": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.2, "when": {"kind": ["b", "c"]}},
            "size": {"type": "fixed", "value": 7},
        },
    }
)
FID = Objective.of("fid")


def population(space=RATE, *, rounds=100, seed=0, objective=FID, **spec):
    given = PopulationSpec(**{"members": 8, "every": 10} | spec)
    return Population(given, space=space, objective=objective, rounds=rounds, seed=seed)


@pytest.fixture
def life(monkeypatch):
    """`life(of, storage)`: the ledger of a population, as a process sees it that finds this storage."""

    def open_(of, storage, sampler="random"):
        monkeypatch.setattr(ledger_module, "open_storage", lambda url: storage)
        return Ledger.open(
            None, "s", space=of.space, rounds=of.rounds, objective=of.objective, sampler=sampler, pruner="none",
            seed=of.seed,
        )  # fmt: skip

    return open_


def drive(of, ledger, end, order=lambda ready: ready):
    """Plays a population as its source does. `end(piece, pieces)`: its outcome and its score."""
    while ready := of.suggestions(ledger):
        for suggestion in order(ready):
            pieces = of.pieces(ledger.trials())
            piece = pieces[suggestion.number]
            outcome, score = end(piece, pieces)
            scores = {"fid": score, "recall": 0.5}
            if outcome is Outcome.COMPLETE:
                ledger.report(suggestion.number, of.span(piece.generation)[1], scores)
            ledger.tell(suggestion.number, outcome, scores if outcome is Outcome.COMPLETE else None)
    return ledger.trials()


NOISE, START = 1.0, 100.0


def error(error, rate, rounds):
    """E[x^2] of SGD on x^2 / 2 with gradients x + N(0, NOISE): e' = (1 - rate)^2 e + rate^2 NOISE, in closed form."""
    keep, rest = (1 - rate) ** 2, rate * NOISE / (2 - rate)
    return keep**rounds * (error - rest) + rest


def of_line(of, piece, pieces):
    """The error at the piece's end, after all of its line."""
    begin, end = of.span(piece.generation)
    before = START if piece.parent is None else of_line(of, pieces[piece.parent], pieces)
    return error(before, piece.trial.values["rate"], end - begin)


def test_a_rate_that_should_fall_is_found_where_no_constant_one_will_do(life):
    rates = [10 ** (-3 + 3 * i / 2000) for i in range(2001)]
    constant = min(error(START, rate, 400) for rate in rates)
    best_there_is = 1 / (1 / START + 400 / NOISE)  # with rate e / (e + NOISE) at every round
    assert best_there_is == pytest.approx(0.0025, rel=1e-3)
    step = START
    for _ in range(3):
        step = 0.7**2 * step + 0.3**2 * NOISE
    assert error(START, 0.3, 3) == pytest.approx(step, rel=1e-12)
    found, falls = [], 0
    for seed in range(20):
        of = population(rounds=400, every=20, seed=seed)
        trials = drive(
            of, life(of, Mortal()), lambda piece, pieces, of=of: (Outcome.COMPLETE, of_line(of, piece, pieces))
        )
        assert len(trials) == 160
        winner = of.finalists(trials, trials)[0]
        schedule = of.schedule(trials, winner.number)
        replayed, at = START, 0
        for until, values in schedule:
            replayed, at = error(replayed, values["rate"], until - at), until
        assert at == 400
        assert replayed == pytest.approx(winner.value, rel=1e-9)  # the schedule is what brought it there
        found.append(winner.value)
        falls += schedule[0][1]["rate"] > 2 * schedule[-1][1]["rate"]
    assert max(found) < constant  # 0.0081, which nobody knew beforehand
    assert median(found) < 0.5 * constant
    assert min(found) > best_there_is
    assert falls == 20


def ends_by_number(piece, pieces):
    """Each kind of end; the score of a line gets better with its rate, and ever better."""
    number = piece.trial.number
    outcomes = {2: Outcome.DIVERGED, 3: Outcome.FAILED, 6: Outcome.OUT_OF_MEMORY}
    return outcomes.get(number % 9, Outcome.COMPLETE), 10 - piece.trial.values["rate"] - piece.generation


def bare(trials):
    return [replace(trial, started=None, ended=None) for trial in trials]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_killed_before_any_write_it_ends_as_one_that_was_not(life, sampler):
    of = population(rounds=30, members=7, quantile=0.3)

    def sweep(storage, order=lambda ready: ready):
        return bare(drive(of, life(of, storage, sampler), ends_by_number, order))

    storage = Mortal()
    whole = sweep(storage)
    assert [trial.number for trial in whole] == list(range(21))
    assert len({trial.seed for trial in whole}) == 21
    for dies_at in range(storage.writes):
        mortal = Mortal(dies_at)
        with pytest.raises(Killed):
            sweep(mortal)
        assert sweep(mortal) == whole, dies_at
    backwards = sweep(Mortal(), lambda ready: ready[::-1])  # other workers were faster
    assert backwards == whole


@pytest.fixture
def begun(life):
    """The first generation of a population of 8 and its ledger, with these ends by member."""

    def begin(of, ends):
        ledger = life(of, Mortal())
        for member, (outcome, score) in enumerate(ends):
            suggestion = ledger.next(8)
            assert suggestion.number == member
            scores = {"fid": score, "recall": 0.5}
            if outcome is Outcome.COMPLETE:
                ledger.report(member, 10, scores)
            ledger.tell(member, outcome, {"fid": 1.0, "recall": 0.5} if outcome is Outcome.COMPLETE else None)
        return ledger

    return begin


DONE = Outcome.COMPLETE


def test_the_worst_go_on_from_the_best_with_other_values_and_all_others_as_they_were(begun):
    # ranked by the score at the piece's end, and not by what it was told to have in the end, 1.0 for all
    scores = [5.0, 1.0, 7.0, 2.0, 8.0, 3.0, 4.0, 6.0]
    parents = Counter()
    for seed in range(60):
        of = population(seed=seed)
        trials = begun(of, [(DONE, score) for score in scores]).trials()
        children = of.due(trials)
        assert [child.attrs["member"] for child in children] == list(range(8))
        assert {child.attrs["generation"] for child in children} == {1}
        assert {child.attrs["begins"] for child in children} == {10}
        for member, child in enumerate(children):
            if member in (2, 4):
                parents[child.attrs["parent"]] += 1
                assert child.values != trials[child.attrs["parent"]].values
            else:
                assert child.attrs["parent"] == member
                assert child.values == trials[member].values
        assert len({child.seed for child in children}) == 8
        assert children == of.due(trials)
    assert set(parents) == {1, 3}
    assert parents[1] == pytest.approx(60, abs=22)  # 120 fair draws: 4 standard deviations


def test_who_has_no_score_goes_on_from_the_best(begun):
    of = population()
    none = [(Outcome.DIVERGED, 0.0), (Outcome.FAILED, 0.0), (Outcome.OUT_OF_MEMORY, 0.0)]
    ledger = begun(of, [*none, (DONE, 3.0), (DONE, 1.0), (DONE, math.inf), (DONE, 2.0), (DONE, 4.0)])
    parents = [child.attrs["parent"] for child in of.due(ledger.trials())]
    assert set(parents[:3]) <= {4, 6}
    assert parents[3:] == [3, 4, 5, 6, 7]  # the bottom quantile is full of those without a score
    assert of.held(ledger.trials()) == {3, 4, 5, 6, 7}
    assert not of.extinct(ledger.trials())


def test_nobody_goes_on_from_nobody(begun):
    of = population()
    trials = begun(of, [(Outcome.DIVERGED, 0.0)] * 8).trials()
    assert of.due(trials) == []
    assert of.extinct(trials)
    assert of.held(trials) == set()


def test_bounds_rank_before_the_metric(begun):
    bounded = Objective.of("fid", None, Bound("recall", at_least=0.6))
    of = population(objective=bounded)
    trials = begun(of, [(DONE, float(score)) for score in range(8)]).trials()
    curves = [trial.curves for trial in trials]
    curves[7]["recall"][10] = 0.7  # the worst fid, and alone within the bound
    ranked = [of.parents(list(of.pieces(trials).values()))[member][1].trial.number for member in (5, 6)]
    assert set(ranked) <= {7, 0}


def test_a_generation_waits_for_its_last_member(begun):
    of = population()
    ledger = begun(of, [(DONE, float(score)) for score in range(7)])
    last = ledger.next(8)
    assert of.due(ledger.trials()) == []
    ledger.tell(last.number, Outcome.FAILED)
    assert len(of.due(ledger.trials())) == 8


def test_a_checkpoint_is_held_until_all_who_may_go_on_from_it_have(begun):
    of = population(rounds=20)
    ledger = begun(of, [(DONE, float(score)) for score in range(8)])
    assert of.held(ledger.trials()) == set(range(8))
    children = of.due(ledger.trials())
    for queued, child in enumerate(children):  # half of them queued: the rest is decided by the same eight
        assert of.held(ledger.trials()) == set(range(8)), queued
        ledger.enqueue(child.values, seed=child.seed, attrs=child.attrs)
    parents = [child.attrs["parent"] for child in children]
    assert of.held(ledger.trials()) == set(parents) == set(range(6))
    for member in range(8):
        number = ledger.next(8).number
        ledger.report(number, 20, {"fid": 1.0})
        ledger.tell(number, DONE, {"fid": 1.0})
        assert of.held(ledger.trials()) == set(parents[member + 1 :])  # and nobody goes on from the last generation
    assert of.due(ledger.trials()) == []


def test_the_last_piece_may_be_shorter(life):
    of = population(rounds=25)
    trials = drive(of, life(of, Mortal()), lambda piece, pieces: (DONE, float(piece.member)))
    assert of.generations == 3
    assert {max(trial.intermediate) for trial in trials[16:]} == {25}
    assert {max(trial.intermediate) for trial in trials[8:16]} == {20}


def test_finalists_are_the_furthest_each_schedule_once(life):
    of = population(rounds=20)

    def end(piece, pieces):
        return DONE, 0.0 if piece.generation == 0 and piece.member == 3 else 1.0 + piece.member

    trials = drive(of, life(of, Mortal()), end)
    best = of.finalists(trials, trials)
    assert {trial.number for trial in best} <= set(range(8, 16))  # 3 had the best score of all, in mid-way
    assert [trial.value for trial in best] == sorted(trial.value for trial in best)
    assert of.schedule(trials, best[0].number) == [(20, trials[0].values)]  # unchanged pieces are one
    twins = [replace(trial, values=trials[0].values) for trial in trials]
    assert len(of.finalists(twins, twins)) == 1
    assert of.finalists(trials[:8], trials[:8])[0].number == 3  # a population that was ended before its time
    assert of.schedule(trials[:8], 3) == [(20, trials[3].values)]


def test_explored_values_are_near_or_new_and_within_the_space():
    of = population(MIXED, resample=0.0)
    values = {"rate": 0.05, "steps": 2, "kind": "b", "slope": 0.5, "size": 7}
    seen = [of.explored(values, 1, member) for member in range(200)]
    assert {round(v["rate"], 6) for v in seen} == {0.04, 0.0625}
    assert {v["steps"] for v in seen} == {1, 3}  # 1.6 and 2.5, and by one at least
    assert {v["kind"] for v in seen} == {"a", "c"}
    assert {v.get("slope") for v in seen if v["kind"] == "c"} == {0.4, 0.625}
    assert all("slope" not in v for v in seen if v["kind"] == "a")
    assert {v["size"] for v in seen} == {7}
    ups = sum(v["rate"] > 0.05 for v in seen)
    assert ups == pytest.approx(100, abs=29)  # 4 standard deviations
    assert {(v["rate"] > 0.05, v["steps"] > 2) for v in seen} == {(a, b) for a in (True, False) for b in (True, False)}

    edge = {"rate": 0.1, "steps": 6, "kind": "a", "size": 7}
    seen = [of.explored(edge, 2, member) for member in range(50)]
    assert {round(v["rate"], 6) for v in seen} == {0.1, 0.08}
    assert {v["steps"] for v in seen} == {6, 5}
    assert {v["kind"] for v in seen} == {"b"}
    assert all(0.0 <= v["slope"] <= 1.0 for v in seen)
    assert len({v["slope"] for v in seen}) == 50  # its condition holds only now: drawn

    anew = population(MIXED, resample=0.25)
    seen = [anew.explored(values, 1, member)["rate"] for member in range(400)]
    new = [rate for rate in seen if round(rate, 6) not in (0.04, 0.0625)]
    assert len(new) == pytest.approx(100, abs=35)
    assert anew.explored(values, 1, 3) == anew.explored(values, 1, 3)


def test_what_is_drawn_is_spread_evenly_over_the_range():
    rng = stream(0, "test")

    def draws(parameter):
        return [drawn(parameter, rng) for _ in range(4000)]

    logs = draws(FloatRange(type="log_float", low=1e-4, high=1.0, default=0.1))
    assert sum(value < 1e-2 for value in logs) == pytest.approx(2000, abs=130)
    assert 1e-4 <= min(logs) < 1.1e-4
    assert 0.9 < max(logs) <= 1.0
    flat = draws(FloatRange(type="float", low=-1.0, high=3.0, default=0.0))
    assert sum(value < 0.0 for value in flat) == pytest.approx(1000, abs=110)
    whole = Counter(draws(IntRange(type="int", low=2, high=5, default=2)))
    assert set(whole) == {2, 3, 4, 5}
    assert all(count == pytest.approx(1000, abs=110) for count in whole.values())
    octaves = Counter(
        math.floor(math.log2(v)) for v in draws(IntRange(type="int", low=1, high=63, default=2, log=True))
    )
    assert set(octaves) == set(range(6))
    choices = Counter(draws(Choice(type="choice", choices=[1, 2, 5], default=5)))
    assert set(choices) == {1, 2, 5}
    assert choices[5] == pytest.approx(1333, abs=120)


def test_a_whole_number_always_moves():
    parameter = IntRange(type="int", low=1, high=200, default=1)
    for value in range(2, 100):
        moved = {perturbed(parameter, value, torch.Generator().manual_seed(seed)) for seed in range(12)}
        assert moved == {min(round(0.8 * value), value - 1), max(round(1.25 * value), value + 1)}
