"""Jobs on warm workers: order, stops, errors, lost workers, and who hears what how often.

Each execution starts its own workers, which takes seconds; one execution therefore serves several tests,
which read what its source wrote down.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from saddlepoint.errors import UserError
from saddlepoint.scaling import cluster
from saddlepoint.scaling.executor import execute
from saddlepoint.scaling.jobs import Job, Resources

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file


def run(payload, report):
    """Does as its payload says, and writes down in its folder what happened to it."""
    folder, kind = Path(payload["folder"]), payload["kind"]
    with open(folder / "attempts", "a") as file:
        file.write(f"{os.getpid()}\n")
    attempt = len((folder / "attempts").read_text().split())
    report({"step": 0, "pid": os.getpid(), "attempt": attempt, "cwd": os.getcwd(), "payload": payload})
    if kind == "raises":
        raise ValueError("the loss is a tuple")
    if kind == "dies" or (kind == "dies_once" and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        for step in range(1, 4):
            if kind == "works":
                time.sleep(0.4)
            report({"step": step, "picture": bytes(range(256)) * 100})
    finally:
        if kind == "closes_slowly":
            time.sleep(3)  # longer than Tune waits for by default
        (folder / "closed").touch()


class Recorder:
    """A source that writes down every call."""

    def __init__(self, folder, kinds, stop=(), fail=None):
        self.folder, self.kinds, self.stop, self.fail = folder, kinds, stop, fail
        self.calls, self.reports, self.errors, self.most = [], {}, {}, 0

    def next(self):
        number = sum(call == "next" for call, _ in self.calls)
        if number == len(self.kinds):
            self.calls.append(("exhausted", None))
            return None
        self.calls.append(("next", number))
        self.most = max(self.most, number + 1 - len(self.errors))
        (self.folder / str(number)).mkdir()
        payload = {"folder": self.folder / str(number), "kind": self.kinds[number], "sets": {1, 2}}
        return Job(number, payload)

    def result(self, number, report):
        self.calls.append(("result", number))
        self.reports.setdefault(number, []).append(report)
        if self.fail == ("result", number):
            raise UserError("the ledger is full")
        return (number, report["step"]) in self.stop

    def ended(self, number, error):
        assert number not in self.errors
        self.calls.append(("ended", number))
        self.errors[number] = error

    def attempts(self, number):
        return (self.folder / str(number) / "attempts").read_text().split()

    def steps(self, number):
        return [report["step"] for report in self.reports[number]]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "ray.log"
    with cluster.running(cpus=2, log=path):
        yield path


def executed(log, folder, kinds, *, concurrency=None, max_restarts=3, **options):
    source = Recorder(folder, kinds, **options)
    resources = Resources(cpus=1, concurrency=concurrency)
    execution = execute(source, run, resources=resources, storage=folder, log=log, max_restarts=max_restarts)
    return source, execution


KINDS = ["plain", "raises", "plain", "stopped", "closes_slowly", "works", "dies_once", *["plain"] * 3]


@pytest.fixture(scope="module")
def mixed(log, tmp_path_factory):
    return executed(log, tmp_path_factory.mktemp("mixed"), KINDS, stop=[(3, 2), (4, 1)])


def test_every_job_ends_once_and_only_those_that_failed_with_an_error(mixed):
    source, execution = mixed
    assert sorted(source.errors) == sorted(execution.ended) == list(range(len(KINDS)))
    assert [number for number, error in source.errors.items() if error] == [1]
    assert not execution.interrupted
    for number in range(len(KINDS)):
        calls = [call for call, of in source.calls if of == number]
        assert calls[0] == "next"
        assert calls[-1] == "ended"
        assert set(calls[1:-1]) == {"result"}


def test_reports_arrive_whole_and_in_order(mixed):
    source, _ = mixed
    for number, kind in enumerate(KINDS):
        if kind == "plain":
            assert source.steps(number) == [0, 1, 2, 3]
            first, *others = source.reports[number]
            assert first["payload"] == {
                "folder": source.folder / str(number),
                "kind": "plain",
                "sets": {1, 2},
            }
            assert all(report["picture"] == bytes(range(256)) * 100 for report in others)
            assert set(others[0]) == {"step", "picture"}


def test_a_stopped_job_hears_it_at_its_report_and_closes_its_files(mixed):
    source, _ = mixed
    assert source.steps(3) == [0, 1, 2]
    assert source.steps(4) == [0, 1]
    for number in (3, 4):
        assert source.errors[number] is None
        assert (source.folder / str(number) / "closed").exists()


def test_an_exception_ends_the_job_with_the_traceback_and_is_not_tried_again(mixed):
    source, _ = mixed
    assert "ValueError: the loss is a tuple" in source.errors[1]
    assert ", in run" in source.errors[1]
    assert len(source.attempts(1)) == 1


def test_a_job_whose_worker_was_killed_runs_again_with_the_same_payload(mixed):
    source, _ = mixed
    assert len(set(source.attempts(6))) == 2
    assert source.steps(6) == [0, 0, 1, 2, 3]
    before, after = source.reports[6][:2]
    assert before["payload"] == after["payload"]
    assert (before["attempt"], after["attempt"]) == (1, 2)


def test_workers_are_warm(mixed):
    source, execution = mixed
    pids = {pid for number in range(len(KINDS)) for pid in source.attempts(number)}
    assert execution.workers == 2
    assert 2 <= len(pids) <= 2 + 1  # two workers, and one for the worker that was killed


def test_a_job_is_asked_for_when_a_worker_is_free_and_not_before(mixed):
    source, _ = mixed
    assert source.most == 2
    assert [of for call, of in source.calls if call == "next"] == list(range(len(KINDS)))
    assert source.calls.count(("exhausted", None)) == 1


def test_workers_stay_where_the_command_was_started(mixed):
    source, _ = mixed
    assert {reports[0]["cwd"] for reports in source.reports.values()} == {os.getcwd()}


def test_busy_time_is_that_of_the_jobs(mixed):
    _, execution = mixed
    assert 1.2 < execution.busy < 2 * execution.wall  # one of them worked for 1.2 s
    assert execution.efficiency == pytest.approx(execution.busy / (2 * execution.wall))


def test_nothing_of_tune_is_left_behind(mixed):
    source, _ = mixed
    assert sorted(path.name for path in source.folder.iterdir()) == sorted(map(str, range(len(KINDS))))


def test_a_second_execution_one_job_at_a_time_with_a_worker_that_always_dies(log, tmp_path):
    source, execution = executed(log, tmp_path, ["dies", "plain"], concurrency=1, max_restarts=1)
    assert source.most == execution.workers == 1
    assert len(source.attempts(0)) == 2
    assert source.errors[0].startswith("worker lost")
    assert source.errors[1] is None
    assert source.calls.index(("ended", 0)) < source.calls.index(("next", 1))


def test_an_error_of_the_source_stops_everything_and_comes_out(log, tmp_path):
    source = Recorder(tmp_path, ["plain"] * 9, fail=("result", 1))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UserError, match="the ledger is full"):
        execute(source, run, resources=Resources(), storage=tmp_path, log=log)
    assert 1 not in source.errors
    assert len(source.reports) < 9
    assert signal.getsignal(signal.SIGINT) is before


def test_no_jobs_at_all_also_from_another_thread(log, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(executed(log, tmp_path, [])))
    thread.start()
    thread.join()
    source, execution = results[0]
    assert source.calls == [("exhausted", None)]
    assert (execution.ended, execution.interrupted, execution.busy) == ((), False, 0)


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        (Resources(cpus=64), "resources: a job asks for 64 CPU, the nodes have 2 CPU"),
        (Resources(gpus=0.5), "resources: a job asks for 1 CPU and 0.5 GPU, the nodes have 2 CPU and 0 GPU"),
        (Resources(cpus=0), "resources.cpus: 0 should be greater than 0"),
    ],
)
def test_what_no_node_has_is_the_users_error(log, tmp_path, resources, line):
    with pytest.raises(UserError) as caught:
        execute(Recorder(tmp_path, []), run, resources=resources, storage=tmp_path, log=log)
    assert str(caught.value) == line
