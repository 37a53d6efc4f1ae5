"""What reaches MLflow: runs, points, parameters, pictures, states; once, in spite of replays and refusals."""

import itertools
import json
import logging
import math
import re
import threading

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from PIL import Image

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.tracking import delivery, query, sender
from saddlepoint.tracking.tracker import Tracker


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(sender, "LINGER", 0.01)
    monkeypatch.setattr(sender, "PAUSE", 0.01)


@pytest.fixture
def opened(uri, tmp_path):
    """Opens Trackers on one folder, one after the other."""
    trackers = []

    def open_tracker() -> Tracker:
        for tracker in trackers:
            tracker.close()
        trackers.append(Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits"))
        return trackers[-1]

    yield open_tracker
    for tracker in trackers:
        tracker.close(timeout=1)


def test_a_sweep_arrives_whole(opened, uri, look, small_sweep):
    tracker = opened()
    small_sweep(tracker)
    assert tracker.drain(30)
    seen = look(uri)
    assert set(seen) == {"sweep", "trial-0000", "trial-0001"}
    assert seen["sweep"]["status"] == "FINISHED"
    assert seen["sweep"]["parent"] is None
    assert seen["sweep"]["tags"] == {"game": "wgan", "mlflow.runName": "digits-wgan"}
    assert seen["sweep"]["files"] == {"spec/pipeline.yaml": b"game: wgan\n"}
    trial = seen["trial-0001"]
    assert trial["status"] == "KILLED"
    assert trial["parent"] == "sweep"
    assert trial["params"] == {"lr": "0.0001", "n_critic": "5"}
    assert trial["tags"]["stopped"] == "pruned"
    assert trial["history"] == {
        "fid": [(10, "10.0"), (20, "5.0"), (30, repr(100 / 30))],
        "loss": [(10, "-10.0"), (20, "nan"), (30, "-30.0")],
    }
    assert tracker.run_id("sweep") == query.sweeps(uri)[0].run_id


def test_sending_everything_again_changes_nothing(opened, uri, tmp_path, look, small_sweep):
    small_sweep(opened())
    opened().close()
    before = look(uri)
    (tmp_path / "sweep" / "spool.sent").write_text("0")
    again = opened()
    assert again.drain(30)
    assert look(uri) == before
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()


def test_a_lost_note_of_the_run_ids_does_not_double_runs(opened, uri, tmp_path, look, small_sweep):
    small_sweep(opened())
    opened().close()
    before = look(uri)
    (tmp_path / "sweep" / "runs.json").unlink()
    again = opened()
    assert again.drain(30)
    assert look(uri) == before
    assert again.run_id("trial-0001") is not None


def test_rounds_repeated_after_a_resume_are_dropped_metric_by_metric(opened, uri, look, png):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    for step in (1, 2, 3):
        tracker.log("trial", step, {"loss": step})
    tracker.log("trial", 2, {"fid": 7.0})
    tracker.picture("trial", "samples", 2, png(1))
    tracker = opened()
    assert tracker.last_step("trial") == 3
    assert tracker.last_step("unknown") == -1
    for step in (2, 3, 4):  # from the checkpoint of round 1; the kill came before round 3 had its fid
        tracker.log("trial", step, {"loss": step + 0.5})
        tracker.log("trial", step, {"fid": 8.0})
        tracker.picture("trial", "samples", step, png(2))
    assert tracker.drain(30)
    trial = look(uri)["trial"]
    assert trial["history"]["loss"] == [(1, "1.0"), (2, "2.0"), (3, "3.0"), (4, "4.5")]
    assert trial["history"]["fid"] == [(2, "7.0"), (3, "8.0"), (4, "8.0")]
    assert trial["file_count"] == 6
    assert trial["files"]["images/samples+step+2.png"] == png(1)


def test_a_resumed_run_runs_again_and_keeps_what_it_has(opened, uri, look):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={"rounds": 10, "lr": 1}, tags={"note": "first"})
    tracker.log("trial", 1, {"loss": 1.0})
    tracker.finish("trial", "FAILED")
    assert tracker.unfinished() == []
    run_id = tracker.run_id("trial") if tracker.drain(30) else None
    tracker = opened()
    tracker.start_run("trial", name="trial", params={"rounds": 20, "lr": 1, "new": 2}, tags={})
    assert tracker.drain(30)
    assert tracker.unfinished() == ["trial"]
    assert tracker.run_id("trial") == run_id is not None
    trial = look(uri)["trial"]
    assert trial["status"] == "RUNNING"
    assert trial["params"] == {"rounds": "10", "lr": "1", "new": "2"}
    assert trial["tags"]["saddle.now.rounds"] == "20", "MLflow keeps the first value of a parameter for ever"
    assert trial["tags"]["note"] == "first"
    assert trial["history"] == {"loss": [(1, "1.0")]}


def test_what_mlflow_would_refuse_is_made_to_fit_and_nothing_is_merged(opened, uri, tmp_path, look):
    tracker = opened()
    many = {f"p{number}": "é" * 6001 for number in range(230)}
    odd = {"players[0].lr": 1, "players(0).lr": 2, "a//b": 3, "../up": 4, "": 5, "k" * 300: 6}
    tracker.start_run("trial", name="trial", params=many | odd, tags={"long": "y" * 9000})
    tracker.log("trial", 1, {"fid@10": 1.0, "fid#10": 2.0, "plain/name 1": 3.0})
    assert tracker.drain(60)
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()
    trial = look(uri)["trial"]
    assert len(trial["params"]) == 236
    assert len(trial["params"]["p229"]) == 6000
    assert len(trial["tags"]["long"]) == 8000
    assert {value for name, value in trial["params"].items() if name not in many} == set("123456")
    assert sorted(points[0][1] for points in trial["history"].values()) == ["1.0", "2.0", "3.0"]
    assert "plain/name 1" in trial["history"]


def test_infinity_comes_back_as_infinity(opened, uri):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    tracker.log("trial", 1, {"up": math.inf, "down": -math.inf, "nan": math.nan})
    assert tracker.drain(30)
    run_id = tracker.run_id("trial")
    assert query.history(uri, run_id, "up") == [(1, math.inf)]
    assert query.history(uri, run_id, "down") == [(1, -math.inf)]
    assert math.isnan(query.history(uri, run_id, "nan")[0][1])
    assert "NaN" not in (tracker._spool.path).read_text(), "each line is JSON for every reader"


def test_pictures_are_named_as_mlflow_names_its_own(opened, uri, tmp_path, png):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    tracker.picture("trial", "grids/fixed z", 40, png(200, side=80))
    assert tracker.drain(30)
    run_id = tracker.run_id("trial")
    MlflowClient(uri).log_image(run_id, Image.new("L", (80, 80), 200), key="grids/fixed z", step=40)
    images = tmp_path / "mlruns" / "digits" / run_id / "artifacts" / "images"
    names = sorted(file.name for file in images.iterdir())
    assert len(names) == 4
    pattern = r"grids~fixed z\+step\+40\+timestamp\+\d{13}\+[0-9a-f-]{36}(\+compressed\.webp|\.png)"
    assert all(re.fullmatch(pattern, name) for name in names), names
    assert [Image.open(file).size for file in images.glob("*+compressed.webp")] == [(256, 256)] * 2
    assert MlflowClient(uri).get_run(run_id).data.tags["mlflow.loggedImages"] == "True"
    assert list((tmp_path / "sweep" / "outbox").iterdir()) == [], "a picture that has arrived leaves the outbox"


def refuse(message: str) -> MlflowException:
    return MlflowException(message, TEMPORARILY_UNAVAILABLE)


def test_an_outage_is_waited_out_and_warned_of_once(opened, uri, monkeypatch, caplog, look, small_sweep):
    back = threading.Event()
    attempts = itertools.count()
    real = delivery.connect

    def connect(uri):
        next(attempts)
        if not back.is_set():
            raise refuse("away")
        return real(uri)

    monkeypatch.setattr(delivery, "connect", connect)
    with caplog.at_level(logging.INFO, logger="saddlepoint.tracking"):
        tracker = opened()
        small_sweep(tracker)
        assert not tracker.drain(0.3)
        assert next(attempts) > 1
        back.set()
        assert tracker.drain(60)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert tracker.trouble is None
    assert len(look(uri)) == 3


def test_a_store_that_stays_away_is_reported_and_loses_nothing(opened, uri, monkeypatch, look, small_sweep):
    def away(uri):
        raise refuse("the server is\naway")

    monkeypatch.setattr(delivery, "connect", away)
    tracker = opened()
    small_sweep(tracker)
    assert not tracker.drain(0.2)
    assert tracker.trouble == "the server is away"
    assert tracker.run_id("sweep") is None
    assert not tracker.close(0.1)
    monkeypatch.undo()
    assert opened().drain(30)
    assert len(look(uri)) == 3


@pytest.mark.parametrize("method", ["create_run", "log_batch", "log_artifact", "set_tag", "set_terminated"])
def test_answers_that_get_lost_double_nothing(opened, uri, monkeypatch, method, look, small_sweep):
    real = getattr(MlflowClient, method)
    calls = itertools.count()

    def lossy(self, *args, **kwargs):
        answer = real(self, *args, **kwargs)
        if next(calls) % 3 == 0:
            raise refuse("the answer got lost")
        return answer

    monkeypatch.setattr(MlflowClient, method, lossy)
    tracker = opened()
    small_sweep(tracker)
    assert tracker.drain(60)
    assert next(calls) > 2
    lossy_result = look(uri)
    monkeypatch.undo()
    plain = Tracker(tracker._spool.path.parent.parent / "plain", tracking_uri=uri, experiment="plain")
    small_sweep(plain)
    assert plain.close(30)
    assert lossy_result == look(uri, "plain")


def test_a_refused_event_is_put_aside_and_the_rest_goes_on(opened, uri, tmp_path, caplog, look):
    tracker = opened()
    tracker.start_run("doomed", name="doomed", params={}, tags={})
    tracker.start_run("fine", name="fine", params={}, tags={})
    assert tracker.drain(30)
    MlflowClient(uri).delete_run(tracker.run_id("doomed"))  # by hand, in MLflow's UI
    for step in range(40):
        tracker.log("fine", step, {"loss": step})
    tracker.log("doomed", 1, {"loss": 1.0})
    tracker.picture("fine", "samples", 1, b"this is no picture")
    tracker.log("fine", 40, {"loss": 40.0})
    assert tracker.drain(60)
    rejected = [json.loads(line) for line in (tmp_path / "sweep" / "spool.rejected.jsonl").open()]
    assert [(line["event"]["kind"], line["event"]["run"]) for line in rejected] == [
        ("log", "doomed"),
        ("picture", "fine"),
    ]
    assert "active" in rejected[0]["error"]
    kept = tmp_path / "sweep" / "rejected" / rejected[1]["event"]["blob"] / "picture.png"
    assert kept.read_bytes() == b"this is no picture"
    assert [step for step, _ in look(uri)["fine"]["history"]["loss"]] == list(range(41))
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 2


@pytest.mark.parametrize(("status", "put_aside"), [(413, True), (404, True), (503, False), (429, False), (403, False)])
def test_http_answers_are_refusals_or_outages(opened, monkeypatch, tmp_path, png, status, put_aside):
    real = MlflowClient.log_artifact
    answers = itertools.count()

    def answer(self, *args):
        if next(answers) < 4:
            response = requests.Response()
            response.status_code = status
            raise requests.HTTPError(f"{status} for url", response=response)
        return real(self, *args)

    monkeypatch.setattr(MlflowClient, "log_artifact", answer)
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    tracker.picture("trial", "samples", 1, png(1))
    assert tracker.drain(60)
    assert (tmp_path / "sweep" / "spool.rejected.jsonl").exists() == put_aside


def test_another_server_is_told_the_whole_history(opened, uri, empty_database, tmp_path, look, small_sweep):
    small_sweep(opened())
    opened().close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mlflow.db").write_bytes(empty_database.read_bytes())
    other = f"sqlite:///{elsewhere}/mlflow.db"
    with Tracker(tmp_path / "sweep", tracking_uri=other, experiment="digits") as tracker:
        assert tracker.drain(60)
    here, there = look(uri), look(other)
    for key in here:  # but not the files: they left the folder when they had arrived here
        assert {k: v for k, v in here[key].items() if "file" not in k and k != "tags"} == {
            k: v for k, v in there[key].items() if "file" not in k and k != "tags"
        }


def test_what_a_crash_left_in_the_outbox_goes(opened, tmp_path):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    tracker.close()
    orphan = tmp_path / "sweep" / "outbox" / "0123"
    orphan.mkdir(parents=True)
    (orphan / "picture.png").write_bytes(b"x")
    opened()
    assert not orphan.exists()


def test_wrong_use_is_said_at_once(opened):
    tracker = opened()
    tracker.start_run("trial", name="trial", params={}, tags={})
    with pytest.raises(ValueError, match="'sweep' was never started"):
        tracker.start_run("other", name="other", parent="sweep", params={}, tags={})
    with pytest.raises(ValueError, match="never started"):
        tracker.log("other", 1, {"loss": 1.0})
    for path in ("/etc/passwd", "../up", "", "."):
        with pytest.raises(ValueError, match="not a relative path"):
            tracker.artifact("trial", path, "x")


def test_a_folder_belongs_to_one_sweep_and_one_process(opened, uri, tmp_path):
    tracker = opened()
    with pytest.raises(SaddleError, match="in use by another process"):
        Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits")
    tracker.close()
    with pytest.raises(SaddleError, match=f"holds the tracking of sweep '{tracker.sweep}', not of 'mine'"):
        Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits", sweep="mine")
    with pytest.raises(UserError, match="'a b' may hold only"):
        Tracker(tmp_path / "other", tracking_uri=uri, experiment="digits", sweep="a b")


def test_queries_are_plain_and_name_what_there_is(opened, uri, small_sweep):
    tracker = opened()
    small_sweep(tracker)
    assert tracker.drain(30)
    assert [run.name for run in query.sweeps(uri)] == ["digits-wgan"]
    assert query.sweeps(uri, "digits") == query.sweeps(uri)
    trials = query.children(uri, tracker.sweep)
    assert [(run.key, run.status, run.metrics["fid"]) for run in trials] == [
        ("trial-0000", "KILLED", 100 / 30),
        ("trial-0001", "KILLED", 100 / 30),
    ]
    assert trials[0].parent == query.sweeps(uri)[0].run_id
    assert trials[0].end >= trials[0].start
    with pytest.raises(UserError, match=f"sweep: 'nope' is not known; known: {tracker.sweep}"):
        query.children(uri, "nope")
    with pytest.raises(UserError, match="experiment: 'digit' is not known; did you mean 'digits'"):
        query.sweeps(uri, "digit")
