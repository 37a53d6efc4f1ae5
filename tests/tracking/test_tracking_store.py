"""Tracking URIs, and what is said of those that cannot be used."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.tracking import query, registry, ui
from saddlepoint.tracking.store import connect, database, experiment_id, explained, redacted, resolve
from saddlepoint.tracking.tracker import Tracker


def test_the_default_is_the_database_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve("sqlite:///mlflow.db") == resolve(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert resolve(None) == "http://host:5000"
    assert resolve("postgresql+psycopg2://u:p@host/db") == "postgresql+psycopg2://u:p@host/db"


@pytest.mark.parametrize("folder", ["plain", "with space", "100% #1?"])
def test_any_folder_name_is_found_again(tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = resolve(None)
    assert database(uri) == tmp_path / folder / "mlflow.db"
    assert resolve(uri) == uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("./mlruns", "'./mlruns' is a path; write it as sqlite:///mlflow.db or http://HOST:PORT"),
        ("file:///data/mlruns", "is a path"),
        ("mlflow.db", "is a path"),
        ("sqlite://", "names no file; write it as sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "names no file"),
        ("http://", "names no server; write it as http://HOST:PORT"),
        ("htp://host", "'htp://host' is not known"),
        ("sqlite:////proc/nowhere/mlflow.db", "/proc/nowhere/mlflow.db"),
    ],
)
def test_a_uri_that_cannot_work_is_the_users_error_in_one_line(tmp_path, uri, says):
    with pytest.raises(UserError) as caught:
        Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_the_users_error(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database, whatever its name says" * 99)
    with pytest.raises(UserError, match=r"mlflow\.db: file is not a database"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_an_old_database_is_named_with_its_cure(uri):
    with sqlite3.connect(database(uri)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '97727af70f4d'")
    connection.close()
    with pytest.raises(UserError, match=r"older MLflow; run `mlflow db upgrade sqlite:///.*mlflow.db`"):
        connect(uri)


def test_a_folder_that_cannot_be_written_is_the_users_error(uri):
    with pytest.raises(UserError, match="tracking folder /proc/nowhere"):
        Tracker(Path("/proc/nowhere"), tracking_uri=uri, experiment="digits")


def test_a_deleted_experiment_is_named_with_its_cure(uri, tmp_path):
    client = connect(uri)
    client.delete_experiment(experiment_id(client, uri, "digits"))
    with pytest.raises(UserError, match=r"experiment: 'digits' was deleted in MLflow; restore it with .* -x 1`"):
        Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits")


def test_artifacts_lie_beside_the_database_wherever_one_stands(uri, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="my digits/1") as tracker:
        tracker.start_run("run", name="run", params={}, tags={})
        tracker.artifact("run", "note.txt", "here")
        assert tracker.drain(30)
        run_id = tracker.run_id("run")
    assert (tmp_path / "mlruns" / "my-digits-1" / run_id / "artifacts" / "note.txt").read_text() == "here"
    assert not list((tmp_path / "elsewhere").iterdir())
    assert MlflowClient(uri).list_artifacts(run_id)[0].path == "note.txt"


def test_looking_makes_no_database(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert query.sweeps(uri) == []
    assert registry.models(uri) == []
    assert registry.champion(uri, "digits-generator") is None
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_down_is_one_sentence_without_the_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://user:secret@127.0.0.1:9"  # the discard port: nobody listens
    with pytest.raises(SaddleError, match=r"tracking store http://127.0.0.1:9 fails") as caught:
        registry.champion(uri, "digits-generator")
    assert not isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert redacted("postgresql://me:pw@host/db") == "postgresql://host/db"
    with pytest.raises(SaddleError, match="fails: a b"), explained(uri):
        raise OSError("a\n b")


def test_the_ui_serves_this_folder_on_this_machine_only(uri, tmp_path):
    arguments, environment = ui.command(uri, port=5001)
    assert arguments[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(arguments[4::2], arguments[5::2], strict=True))
    assert options["--backend-store-uri"] == uri
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5001")
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    with pytest.raises(UserError, match=r"http://host:1 is a server"):
        ui.command("http://me:pw@host:1")


def test_a_first_use_prints_nothing_and_calls_nobody(tmp_path):
    program = """
import os, saddlepoint.tracking
assert "mlflow" not in __import__("sys").modules
from pathlib import Path
from saddlepoint.tracking.tracker import Tracker
with Tracker(Path("sweep"), tracking_uri=None, experiment="digits") as tracker:
    tracker.start_run("run", name="run", params={}, tags={})
    tracker.finish("run", "FINISHED")
assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mlflow.db").exists()
