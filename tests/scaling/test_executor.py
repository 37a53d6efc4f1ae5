"""Jobs on warm workers: order, stops, errors, lost workers, crowds, and who hears what how often.

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
from saddlepoint.remote import Outage
from saddlepoint.scaling import cluster
from saddlepoint.scaling.executor import execute, rest
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
    if kind == "is cut off":
        raise Outage("s3://bucket: the storage fails")
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
    """A source that writes down every call, and gives out again, at half the crowd, what lost its worker."""

    def __init__(self, folder, kinds, stop=(), fail=None, tries=2):
        self.folder, self.kinds, self.stop, self.fail, self.tries = folder, kinds, stop, fail, tries
        self.calls, self.reports, self.ends, self.most = [], {}, {}, 0
        self.given, self.again, self.out = 0, [], set()

    def next(self):
        if self.again:
            number, crowd = self.again.pop(), 0.5
        elif self.given < len(self.kinds):
            number, crowd, self.given = self.given, 1.0, self.given + 1
            (self.folder / str(number)).mkdir()
        else:
            self.calls.append(("exhausted", None))
            return None
        self.calls.append(("next", number))
        self.out.add(number)
        self.most = max(self.most, len(self.out))
        payload = {"folder": self.folder / str(number), "kind": self.kinds[number], "sets": {1, 2}}
        return Job(number, payload, crowd)

    def result(self, number, report):
        self.calls.append(("result", number))
        self.reports.setdefault(number, []).append(report)
        if self.fail == ("result", number):
            raise UserError("the ledger is full")
        return (number, report["step"]) in self.stop

    def ended(self, number, end):
        self.calls.append(("ended", number))
        self.out.remove(number)
        self.ends.setdefault(number, []).append(end)
        if end.how == "lost" and len(self.ends[number]) < self.tries:
            self.again.append(number)

    def attempts(self, number):
        return (self.folder / str(number) / "attempts").read_text().split()

    def steps(self, number):
        return [report["step"] for report in self.reports[number]]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "ray.log"
    with cluster.running(cpus=2, log=path):
        yield path


def executed(log, folder, kinds, *, concurrency=None, **options):
    source = Recorder(folder, kinds, **options)
    resources = Resources(cpus=1, concurrency=concurrency)
    execution = execute(source, run, resources=resources, storage=folder, log=log)
    return source, execution


KINDS = ["plain", "raises", "plain", "stopped", "closes_slowly", "works", "dies_once", *["plain"] * 3, "is cut off"]


@pytest.fixture(scope="module")
def mixed(log, tmp_path_factory):
    return executed(log, tmp_path_factory.mktemp("mixed"), KINDS, stop=[(3, 2), (4, 1)])


def test_every_job_ends_once_for_each_time_that_it_was_given_out(mixed):
    source, execution = mixed
    hows = {number: [end.how for end in ends] for number, ends in source.ends.items()}
    assert hows == {number: ["done"] for number in range(len(KINDS))} | {
        1: ["error"],
        6: ["lost", "done"],
        10: ["outage"],
    }
    assert sorted(execution.ended) == sorted([*range(len(KINDS)), 6])
    assert not execution.interrupted
    for number in range(len(KINDS)):
        calls = [call for call, of in source.calls if of == number and call != "result"]
        assert calls == ["next", "ended"] * len(hows[number])


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
        assert source.ends[number][0].text == ""
        assert (source.folder / str(number) / "closed").exists()


def test_an_exception_ends_the_job_with_the_traceback_and_is_not_tried_again(mixed):
    source, _ = mixed
    assert source.ends[10][0].text == "s3://bucket: the storage fails"
    [end] = source.ends[1]
    assert "ValueError: the loss is a tuple" in end.text
    assert ", in run" in end.text
    assert len(source.attempts(1)) == 1


def test_a_job_whose_worker_was_killed_is_told_as_lost_and_can_be_given_out_again(mixed):
    source, _ = mixed
    assert source.ends[6][0].text.startswith("worker lost")
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
    assert source.most <= 3  # two at work, and one that waits for its crowd to leave
    first = dict.fromkeys(of for call, of in source.calls if call == "next")
    assert list(first) == list(range(len(KINDS)))
    assert source.calls[-1] == ("exhausted", None)
    assert 1 <= source.calls.count(("exhausted", None)) <= 3  # asked again only after an end


def test_a_job_with_a_smaller_crowd_runs_alone(mixed):
    source, _ = mixed
    again = [place for place, call in enumerate(source.calls) if call == ("next", 6)][1]
    heard = source.calls.index(("result", 6), again)
    end = source.calls.index(("ended", 6), heard)
    assert {of for call, of in source.calls[heard:end] if call == "result"} == {6}  # half of two workers


def test_workers_stay_where_the_command_was_started(mixed):
    source, _ = mixed
    assert {reports[0]["cwd"] for reports in source.reports.values()} == {os.getcwd()}


def test_busy_time_is_that_of_the_jobs(mixed):
    _, execution = mixed
    assert 1.2 < execution.busy < 2 * execution.wall  # one of them worked for 1.2 s
    assert execution.efficiency == pytest.approx(execution.busy / (2 * execution.wall))


def test_nothing_of_tune_is_left_behind(mixed):
    source, _ = mixed
    rest()
    assert sorted(path.name for path in source.folder.iterdir()) == sorted(map(str, range(len(KINDS))))


def test_a_second_execution_one_job_at_a_time_with_a_worker_that_always_dies(log, tmp_path):
    source, execution = executed(log, tmp_path, ["dies", "plain"], concurrency=1, tries=3)
    assert source.most == execution.workers == 1
    assert len(source.attempts(0)) == 3
    assert [end.how for end in source.ends[0]] == ["lost"] * 3
    assert [end.how for end in source.ends[1]] == ["done"]


def test_an_error_of_the_source_stops_everything_and_comes_out(log, tmp_path):
    source = Recorder(tmp_path, ["plain"] * 9, fail=("result", 1))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UserError, match="the ledger is full"):
        execute(source, run, resources=Resources(), storage=tmp_path, log=log)
    assert 1 not in source.ends
    assert len(source.reports) < 9
    assert signal.getsignal(signal.SIGINT) is before


def test_no_jobs_at_all_also_from_another_thread(log, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(executed(log, tmp_path, [])))
    thread.start()
    thread.join()
    source, execution = results[0]
    assert source.calls == [("exhausted", None)]  # and Tune was told so
    assert (execution.ended, execution.interrupted, execution.busy) == ((), False, 0)


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        (Resources(cpus=64), "resources: a job asks for 64 CPU, the nodes have 2 CPU"),
        (Resources(gpus=0.5), "resources: a job asks for 1 CPU and 0.5 GPU, the nodes have 2 CPU and 0 GPU"),
    ],
)
def test_what_no_node_has_is_the_users_error(log, tmp_path, resources, line):
    with pytest.raises(UserError) as caught:
        execute(Recorder(tmp_path, []), run, resources=resources, storage=tmp_path, log=log)
    assert str(caught.value) == line
