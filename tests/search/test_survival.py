"""Killed between any two writes and reopened, a sweep ends as one that was never killed."""

import math
from dataclasses import replace

import optuna
import pytest
from optuna.storages import InMemoryStorage

from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search import ledger as ledger_module
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.space import Space

SPACE = Space.model_validate(
    {
        "game": "g",
        "parameters": {
            "width": {"type": "choice", "choices": [16, 32], "default": 16},
            "depth": {"type": "int", "low": 1, "high": 3, "default": 1},
            "slope": {"type": "choice", "choices": [0.0, 0.2], "default": 0.2, "when": {"width": 32}},
        },
    }
)
ONE = Objective.of("fid", None, Bound("recall", at_least=0.4))
TWO = Objective.of("fid", "recall", Bound("density", at_most=2.0))


class Killed(BaseException):
    pass


class Mortal(InMemoryStorage):
    """A storage whose driver dies right before the write of that number."""

    def __init__(self, dies_at=math.inf):
        super().__init__()
        self.writes, self.dies_at = 0, dies_at

    def count(self):
        if self.writes == self.dies_at:
            self.dies_at = math.inf
            raise Killed
        self.writes += 1


def _counted(name):
    def write(self, *arguments, **named):
        self.count()
        return getattr(InMemoryStorage, name)(self, *arguments, **named)

    return write


for _name in dir(InMemoryStorage):
    if _name.startswith(("set_", "create_new_", "delete_")):
        setattr(Mortal, _name, _counted(_name))


@pytest.fixture
def life(monkeypatch):
    """`life(storage, ...)`: the ledger as a process sees it that finds this storage."""

    def open_(storage, **options):
        monkeypatch.setattr(ledger_module, "open_storage", lambda url: storage)
        return Ledger.open(
            None, "s", **{"space": SPACE, "rounds": 9, "objective": ONE, "pruner": "hyperband"} | options
        )

    return open_


def scores(values, step):
    bad = values["depth"] + values.get("slope", 1.0) + values["width"] / 16
    return {"fid": bad * (1 + 1 / step), "recall": 0.1 * values["depth"] + 0.2, "density": 1.0}


def drive(ledger, limit):
    """Any trial ends by its number and values alone, so that a resumed one ends as it would have."""
    while suggestion := ledger.next(limit):
        number, values = suggestion.number, suggestion.values
        for step in (1, 4):
            if ledger.report(number, step, scores(values, step)):
                ledger.tell(number, Outcome.PRUNED, reason=f"at {step}")
                break
        else:
            match number % 5:
                case 2:
                    ledger.tell(number, Outcome.DIVERGED)
                case 3:
                    ledger.tell(number, Outcome.FAILED, reason="a bug")
                case 4:
                    ledger.tell(number, Outcome.OUT_OF_MEMORY)
                case _:
                    ledger.note(number, run_id=f"run-{number}")
                    ledger.tell(number, Outcome.COMPLETE, scores(values, 9))


def ends(ledger):
    return [replace(record, started=None, ended=None) for record in ledger.trials()]


@pytest.mark.parametrize(("objective", "sampler"), [(ONE, "random"), (TWO, "tpe")], ids=["one", "two"])
def test_a_sweep_killed_before_any_write_ends_as_one_that_was_not(life, objective, sampler):
    def sweep(storage):
        ledger = life(storage, objective=objective, sampler=sampler)
        drive(ledger, 8)
        return ends(ledger)

    storage = Mortal()
    whole = sweep(storage)
    assert {"complete", "pruned", "diverged", "failed", "out of memory", "duplicate"} == {r.state for r in whole}
    for dies_at in range(storage.writes):
        mortal = Mortal(dies_at)
        with pytest.raises(Killed):
            sweep(mortal)
        assert sweep(mortal) == whole, dies_at


def test_an_extension_killed_before_any_write_ends_as_one_that_was_not(life):
    content = SPACE.model_dump()
    content["parameters"]["width"]["choices"] = [32, 64]
    content["parameters"]["width"]["default"] = 64
    content["parameters"]["decay"] = {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}
    changes = {"space": Space.model_validate(content), "rounds": 27, "extend": True, "longer": 2}

    def begun(dies_at=math.inf):
        storage = Mortal()
        drive(life(storage), 8)
        ledger = life(storage)
        ledger.enqueue(SPACE.defaults() | {"depth": 3}, seed=7)
        ledger.next(0)  # the queued one is running
        ledger.next(9)
        ledger.set("note", [1, 2])
        storage.writes, storage.dies_at = 0, dies_at
        return storage

    storage = begun()
    ledger = life(storage, **changes)
    whole, writes = ends(ledger), storage.writes
    assert life(storage, **changes).study.study_name == "s#2"
    assert storage.writes == writes  # extended once, then gone on with
    for dies_at in range(writes):
        mortal = begun(dies_at)
        with pytest.raises(Killed):
            life(mortal, **changes)
        assert life(mortal).study.study_name == "s"  # half a copy is no copy
        ledger = life(mortal, **changes)
        assert ends(ledger) == whole, dies_at
        assert ledger.get("note") == [1, 2]
        assert sorted(optuna.get_all_study_names(mortal)) == ["s", "s#2"]
