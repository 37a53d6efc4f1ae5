"""Workers that rest, between executions and while a source has nothing for them; and that they keep nobody out."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import ray

from saddlepoint.scaling import cluster, desk
from saddlepoint.scaling.executor import execute, rest
from saddlepoint.scaling.jobs import Job, Resources

pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file


def run(payload, report):
    """Works for so many seconds, or until so many jobs of its generation have begun, each on a worker of its own."""
    folder, generation, job = payload
    report({"pid": os.getpid()})
    if isinstance(job, float):
        time.sleep(job)
        return
    (folder / f"{generation}-{os.getpid()}").touch()
    until = time.monotonic() + 60
    while len(list(folder.glob(f"{generation}-*"))) < job and time.monotonic() < until:
        time.sleep(0.05)


class Generations:
    """Gives out jobs; a generation begins when all of the one before have ended."""

    def __init__(self, folder, *generations):
        self.folder, self.generations = folder, [list(generation) for generation in generations]
        self.given, self.out, self.pids, self.hows = 0, set(), {}, {}

    def next(self):
        while self.generations and not self.generations[0] and not self.out:
            self.generations.pop(0)
        if not self.generations or not self.generations[0]:
            return None
        number, self.given = self.given, self.given + 1
        self.out.add(number)
        return Job(number, (self.folder, len(self.generations), self.generations[0].pop(0)))

    def result(self, number, report):
        self.pids.setdefault(number, report["pid"])
        return False

    def ended(self, number, end):
        self.out.remove(number)
        self.hows[number] = end.how


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "ray.log"
    with cluster.running(cpus=2, log=path):
        yield path


@pytest.fixture
def executed(log, tmp_path):
    def execution(*generations, **resources):
        source = Generations(Path(tempfile.mkdtemp(dir=tmp_path)), *generations)
        done = execute(source, run, resources=Resources(**resources), storage=tmp_path, log=log)
        assert source.hows == dict.fromkeys(range(sum(map(len, generations))), "done")
        assert sorted(done.ended) == sorted(source.hows)
        return source.pids

    yield execution
    rest()


def free(cpus: float = 2) -> bool:
    """Within seconds, for Ray counts now and then."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if ray.available_resources().get("CPU", 0) == cpus:
            return True
        time.sleep(0.1)
    return False


PAIR = [2, 2]  # jobs that wait for each other


def test_the_next_execution_finds_its_workers_warm_and_at_the_end_they_are_gone(executed):
    first = set(executed(PAIR).values())
    assert set(executed([*PAIR, 0.0]).values()) == first
    rest()
    assert free()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in first if psutil.pid_exists(pid)], timeout=10)
    assert not alive


def test_a_worker_waits_for_the_next_generation_instead_of_ending(executed):
    pids = executed(PAIR, [0.0, 1.5], PAIR, [0.0, 1.5], PAIR)
    assert len(set(pids.values())) == 2


def test_other_resources_get_other_workers_and_find_the_room_for_them(executed):
    first = set(executed(PAIR).values())
    [second] = set(executed([0.0, 0.0], cpus=2).values())
    assert second not in first


def test_a_worker_that_dies_while_it_rests_is_replaced_when_there_is_a_job_for_it(executed):
    killed, stays = executed(PAIR).values()
    os.kill(killed, signal.SIGKILL)
    second = set(executed(PAIR).values())
    assert len(second) == 2
    assert stays in second
    assert killed not in second


def test_after_a_while_they_end_by_themselves(executed, monkeypatch):
    monkeypatch.setattr(desk, "KEPT", 0.5)
    [first] = executed([0.0]).values()
    assert free()
    [second] = executed([0.0]).values()
    assert first != second


def test_nothing_is_started_only_to_rest(executed):
    assert executed([]) == {}
    assert len(set(executed([0.0, 0.0, 0.0], concurrency=1).values())) == 1
    rest()
    executed([0.0])
    time.sleep(3 * desk.REST)
    assert ray.available_resources().get("CPU") == 1


OWN = """
import sys
from pathlib import Path
import ray
from saddlepoint.scaling import cluster, executor
from saddlepoint.scaling.executor import execute
from saddlepoint.scaling.jobs import Job, Resources


def run(payload, report):
    report({})


class Source:
    def __init__(self):
        self.jobs = [Job(0, None)]

    def next(self):
        return self.jobs.pop() if self.jobs else None

    def result(self, number, report):
        return False

    def ended(self, number, end):
        print(end.how)


log = Path(sys.argv[1], "ray.log")
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
for _ in range(2):
    with cluster.running(log=log):
        execute(Source(), run, resources=Resources(), storage=log.parent, log=log)
    print(len(executor._open))
ray.shutdown()
with cluster.running(cpus=1, log=log):
    for _ in range(2):
        with cluster.running(log=log):
            execute(Source(), run, resources=Resources(), storage=log.parent, log=log)
        print(len(executor._open))
print(len(executor._open))
"""


def test_a_ray_that_somebody_else_has_started_is_given_back_without_workers(tmp_path):
    """Who started it may shut it down at any time, and Ray itself starts another one for whoever then asks it."""
    done = subprocess.run([sys.executable, "-c", OWN, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["done", "0", "done", "0", "done", "1", "done", "1", "0"]
    assert done.returncode == 0
