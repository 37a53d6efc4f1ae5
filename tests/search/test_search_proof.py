"""What a search is worth, on tabulated curves: no training, and a whole search in less than a second."""

import random
import statistics
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from saddlepoint.metrics.objective import Bound, Objective

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "simulator.py"
RECALL = Bound("recall", at_least=0.3)


@pytest.fixture(scope="module")
def simulator():
    import sys

    spec = spec_from_file_location("simulator", PROGRAM)
    module = module_from_spec(spec)
    sys.modules["simulator"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["simulator"]


@pytest.mark.slow
def test_the_search_needs_a_fifth_of_the_rounds_of_random_search_at_full_length(simulator):
    landscapes = [simulator.Landscape(simulator.SHAPES[seed % 3], seed) for seed in range(50)]
    table = simulator.table("Rounds until a good configuration is complete, 50 seeds, 2 workers")
    rounds = {}
    for name in ("random, full length", "TPE + successive halving"):
        rounds[name] = [simulator.rounds_to_good(land, **simulator.SEARCHES[name]) for land in landscapes]
        table.add_row(name, *simulator.row(rounds[name], rounds["random, full length"]))
    simulator.Console(highlight=False).print(table)
    baseline, ours = (statistics.median(found) for found in rounds.values())
    # Of random draws, half have hit SHARE of the volume after log(1/2) / log(1 - SHARE) = 34.3 trials.
    assert 0.6 < baseline / (34.3 * simulator.ROUNDS) < 1.4
    assert ours <= baseline / 5


@pytest.mark.parametrize("shape", ["bowl", "ridge", "decoy"])
def test_the_landscapes_are_what_they_say(simulator, shape):
    places, kept = set(), []
    for seed in range(6):
        land = simulator.Landscape(shape, seed)
        places.add(tuple(land.best.values()))
        best = {name: 10**at if name != "n_critic" else at for name, at in land.best.items()}
        assert land.is_good(best)
        draw = random.Random(seed)
        drawn = [simulator.uniform(draw) for _ in range(2000)]
        share = sum(land.is_good(values) for values in drawn) / len(drawn)
        assert share == pytest.approx(simulator.SHARE, abs=0.012)  # 4 standard deviations of the estimate
        diverging = sum(land.diverges(values) is not None for values in drawn) / len(drawn)
        assert 0.005 < diverging < 0.35
        finite = [values for values in drawn if land.diverges(values) is None]
        leading = sorted(finite, key=lambda values: land.level(values, 10)["fid"])[: int(simulator.SHARE * 2000)]
        kept.append(sum(map(land.is_good, leading)) / len(leading))
    assert 0.2 < sum(kept) / 6 < 0.8  # curves cross: of the leaders at the first rung, not all are good at the end
    assert len(places) == 6


@pytest.mark.parametrize("seed", range(8))
def test_a_bound_rejects_a_planted_collapse_that_wins_on_fid_alone(simulator, seed):
    land = simulator.Landscape("bowl", seed, collapse=True)
    best = {}
    for objective in (Objective.of("fid"), Objective.of("fid", None, RECALL)):
        simulation = simulator.simulated(land, objective)
        simulation.play(60)
        best[objective], *others = simulation.ledger.best(5)
        assert others
        assert simulation.ledger.front()[0] == best[objective]
    blind, bound = best.values()
    assert land.collapsed(blind.values)
    assert blind.scores["fid"] < 12  # better than all that keep their recall
    assert not land.collapsed(bound.values)
    assert bound.feasible
    assert bound.scores["recall"] >= 0.3
