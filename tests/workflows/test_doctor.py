"""`saddle doctor`: whether this machine is ready, and if not, what is missing."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from saddlepoint.scaling.submission import Jobs
from saddlepoint.workflows import doctor as doctor_room

HEAD = "http://head.example:8265"
Verdict = Callable[[str], tuple[bool, str]]


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Verdict:
    """What is said of one thing, in an empty folder where nothing is set but a store that has no sweeps."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(doctor_room.query, "sweeps", lambda uri: [])
    monkeypatch.chdir(tmp_path)

    def of(name: str) -> tuple[bool, str]:
        [check] = [check for check in doctor_room.doctor() if check.name == name]
        return check.good, check.verdict

    return of


def test_it_knows_where_trials_and_jobs_go(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict("ray") == (True, "starts locally, for each command (RAY_ADDRESS is not set)")
    monkeypatch.setenv("RAY_ADDRESS", HEAD)
    assert verdict("ray") == (
        False, f"RAY_ADDRESS: {HEAD!r} should be HOST:PORT of a cluster's head, as seen from inside"
    )  # fmt: skip
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", HEAD)
    monkeypatch.setattr(doctor_room, "Jobs", lambda address: SimpleNamespace(all=lambda: [1, 2]))
    assert verdict("ray") == (True, f"jobs go to the cluster at {HEAD}, which has 2")
    monkeypatch.setattr(doctor_room, "Jobs", Jobs)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert verdict("ray") == (False, "no Ray cluster answers at http://127.0.0.1:1: Connection refused")


@pytest.mark.parametrize(("free", "good", "ending"), [(7e9, True, ""), (3e9, False, "; a sweep wants 5 or more")])
def test_it_says_how_much_disk_is_wanted(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, good: bool, ending: str
) -> None:
    monkeypatch.setattr(doctor_room.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert verdict("disk") == (good, f"{free / 1e9:.0f} GB free in {tmp_path}{ending}")


def test_it_says_where_nothing_can_be_written(
    verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor_room.shutil, "disk_usage", lambda path: SimpleNamespace(free=7e9))
    monkeypatch.setattr(doctor_room.os, "access", lambda path, mode: False)
    assert verdict("disk") == (False, f"7 GB free in {tmp_path}, which cannot be written")
