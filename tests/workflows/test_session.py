"""Two sweeps of one session, on Ray: it starts once, its workers stay."""

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from saddlepoint import session, sweep
from saddlepoint.scaling import executor
from saddlepoint.scaling.tuning import Tuning
from saddlepoint.spec import Pipeline


@pytest.mark.slow
def test_the_sweeps_of_a_session_share_ray_and_its_workers(
    tmp_path: Path, small: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    began: list[Tuning] = []
    start = Tuning.start
    monkeypatch.setattr(Tuning, "start", lambda self: (began.append(self), start(self)))
    with session(cpus=1):
        for name in ("one", "two"):
            records = sweep(small(f"name={name}", "search.trials=2", "search.pruner=none", "search.min_rounds=null"))
            assert [record.state for record in records] == ["complete", "complete"]
        assert ray.cluster_resources()["CPU"] == 1
        assert len(began) == 1  # one run of Tune served both
    assert not ray.is_initialized()
    assert not executor._open
    assert not (tmp_path / "sweeps" / "one" / "ray" / "tune").exists()
    assert (tmp_path / "sweeps" / "one" / "ledger.db").exists()
