"""Jobs on several workers each: reports, stops, errors and losses of a group, and what it leaves behind: nothing.

A group takes some ten seconds to start, so one execution serves most of these tests.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import ray
import torch
from ray.util import placement_group_table

from saddlepoint.errors import UserError
from saddlepoint.scaling import cluster, group, mailbox
from saddlepoint.scaling.executor import execute, rest
from saddlepoint.scaling.jobs import Job, LastReport, Resources
from saddlepoint.scaling.places import SHARE, fitting, starter, worker
from saddlepoint.training.team import here

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file


class Unsendable(ValueError):
    """An exception as users write them: it cannot be pickled."""

    def __init__(self, what: str, loss: float) -> None:
        super().__init__(f"the {what} is {loss}")


def run(payload, report):
    """Every member adds up the ranks of all, and does as its payload says; each writes down that it was there."""
    folder, kind, team = Path(payload["folder"]), payload["kind"], here()
    with open(folder / f"pids-{team.rank}", "a") as file:
        file.write(f"{os.getpid()}\n")
    life = len((folder / f"pids-{team.rank}").read_text().split())
    gloo = os.environ.get("GLOO_SOCKET_IFNAME")
    for step in range(4):
        total = team.size * team.average(torch.tensor([float(team.rank + 1)])).item()
        report({"step": step, "total": total, "rank": team.rank, "life": life, "gloo": gloo})
        if not (folder / f"heard-{step}").exists():
            (folder / "went on unheard").touch()
        if team.rank == 1 and step == 1:
            if kind == "raises":
                raise Unsendable("loss", 3.5)
            if kind == "ends alone":
                raise LastReport({"step": -1, "memory": "full"})
            if kind == "dies once" and life == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"done-{team.rank}").touch()


class Recorder:
    """Gives out each kind once, and what was lost again; stops the jobs whose kind says so at their second report."""

    def __init__(self, folder, kinds):
        self.folder, self.kinds = folder, kinds
        self.waiting, self.reports, self.ends, self.free = list(range(len(kinds))), {}, {}, {}

    def next(self):
        if not self.waiting:
            return None
        number = self.waiting.pop(0)
        place = self.folder / self.kinds[number]
        place.mkdir(exist_ok=True)
        return Job(number, {"folder": place, "kind": self.kinds[number]})

    def result(self, number, report):
        self.reports.setdefault(self.kinds[number], []).append(report)
        time.sleep(0.2)
        (self.folder / self.kinds[number] / f"heard-{report['step']}").touch()
        return self.kinds[number] == "stopped" and report["step"] == 1

    def ended(self, number, end):
        self.ends.setdefault(self.kinds[number], []).append(end)
        self.free[self.kinds[number]] = alive(self.folder / self.kinds[number])
        if end.how == "lost":
            self.waiting.append(number)


def pids(folder: Path) -> list[int]:
    return [int(pid) for path in folder.glob("pids-*") for pid in path.read_text().split()]


def alive(folder: Path) -> list[int]:
    """The members that live, a moment after: Ray kills them, and the system takes its time."""
    until = time.monotonic() + 5
    while living := [pid for pid in pids(folder) if Path(f"/proc/{pid}/cmdline").exists() and cmdline(pid)]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return living


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie has none
    except OSError:
        return b""


def all_is_free() -> bool:
    """Within seconds, for Ray counts now and then."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        left = [each for each in placement_group_table().values() if each["state"] != "REMOVED"]
        if not left and ray.available_resources().get("CPU") == 4:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "ray.log"
    with cluster.running(cpus=4, log=path):
        yield path


KINDS = ["plain", "raises", "stopped", "ends alone", "dies once"]


@pytest.fixture(scope="module")
def mixed(log, tmp_path_factory):
    source = Recorder(tmp_path_factory.mktemp("mixed"), KINDS)
    execution = execute(source, run, resources=Resources(workers=2), storage=source.folder, log=log)
    rest()
    return source, execution, all_is_free()


@pytest.mark.slow
def test_the_first_member_is_heard_and_all_of_them_work_together(mixed):
    source, execution, _ = mixed
    assert execution.workers == 2  # jobs at once: 4 CPUs hold four workers
    assert [report["step"] for report in source.reports["plain"]] == [0, 1, 2, 3]
    for report in source.reports["plain"]:
        assert (report["total"], report["rank"]) == (3.0, 0)
    assert [end.how for end in source.ends["plain"]] == ["done"]
    assert len(set(pids(source.folder / "plain"))) == 2
    assert not list(source.folder.glob("*/went on unheard"))  # every member waits for the answer


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere gloo chooses by itself")
def test_members_meet_at_the_address_at_which_ray_knows_their_node(mixed):
    source, _, _ = mixed
    names = {report["gloo"] for report in source.reports["plain"]}
    assert len(names) == 1
    assert names <= {name for _, name in socket.if_nameindex()}


@pytest.mark.slow
def test_a_stop_reaches_every_member_at_its_report(mixed):
    source, _, _ = mixed
    assert [report["step"] for report in source.reports["stopped"]] == [0, 1]
    assert [(end.how, end.text) for end in source.ends["stopped"]] == [("done", "")]
    assert not list((source.folder / "stopped").glob("done-*"))


@pytest.mark.slow
def test_an_exception_of_any_member_comes_with_its_traceback_and_is_not_tried_again(mixed):
    source, _, _ = mixed
    [end] = source.ends["raises"]
    assert end.how == "error"
    assert "Unsendable: the loss is 3.5" in end.text.strip().splitlines()[-1]
    assert ", in run" in end.text
    assert len(pids(source.folder / "raises")) == 2


@pytest.mark.slow
def test_a_member_may_end_it_alone_with_a_last_report(mixed):
    source, _, _ = mixed
    assert source.reports["ends alone"][-1] == {"step": -1, "memory": "full"}
    assert [end.how for end in source.ends["ends alone"]] == ["done"]


@pytest.mark.slow
def test_the_loss_of_one_member_is_that_of_the_job_which_can_be_given_out_again(mixed):
    source, _, _ = mixed
    lost, done = source.ends["dies once"]
    assert (lost.how, lost.text) == ("lost", "worker lost: one of its 2 processes was killed or crashed")
    assert done.how == "done"
    steps = [(report["life"], report["step"]) for report in source.reports["dies once"]]
    assert steps[-4:] == [(2, 0), (2, 1), (2, 2), (2, 3)]
    assert steps[:2] == [(1, 0), (1, 1)]


@pytest.mark.slow
def test_members_are_gone_when_their_job_has_ended_and_everything_is_free_after_the_last(mixed):
    source, _, free = mixed
    assert source.free == {kind: [] for kind in KINDS}
    assert free
    assert sorted(path.name for path in source.folder.iterdir()) == sorted(KINDS)


@pytest.mark.slow
def test_what_a_group_held_is_freed_also_when_its_starter_is_killed(log, tmp_path):
    """Without it the workers' CPUs were taken until the end of the driver, and the next job would wait for ever."""
    box = mailbox.make()

    @ray.remote(num_cpus=0, max_retries=0)
    def start(letters):
        def hear(values):
            os.kill(os.getpid(), signal.SIGKILL)

        payload = {"folder": tmp_path, "kind": "plain"}
        group.play(run, payload, hear, resources=Resources(workers=2), storage=tmp_path, mailbox=letters, name="it")

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(start.remote(box))
    group.clear(["another"])
    assert [each["state"] for each in placement_group_table().values()].count("CREATED") == 1
    group.clear(["it"])
    assert all_is_free()
    assert len(pids(tmp_path)) == 2
    assert alive(tmp_path) == []


@pytest.mark.parametrize(
    ("resources", "machines", "jobs"),
    [
        (Resources(cpus=1), [(2, 0), (4, 0)], 6),
        (Resources(cpus=3), [(2, 0), (4, 0)], 1),  # a worker lies on one machine
        (Resources(cpus=1, workers=4), [(2, 0), (4, 0), (1, 0)], 1),  # a job's workers may be on several
        (Resources(cpus=2, workers=3), [(4, 0), (3, 0), (5, 0)], 1),  # 2 + 1 + 2 places
        (Resources(gpus=1 / 3), [(8, 1)], 3),
        (Resources(gpus=0.4), [(8, 2)], 4),  # 5 would need one that lies on two GPUs
        (Resources(gpus=0.5), [(3, 2), (8, 0)], 3),
        (Resources(gpus=2), [(8, 3), (8, 4)], 3),
        (Resources(gpus=1, workers=2), [(8, 1), (8, 1), (8, 1)], 1),
        (Resources(cpus=1, concurrency=2), [(8, 0)], 2),
        (Resources(cpus=1, workers=3), [(2, 0)], 0),
    ],
)
def test_how_many_jobs_fit(resources, machines, jobs):
    assert resources.at_once(machines) == jobs


@pytest.mark.parametrize("machines", [[4], [1, 1], [1] * 10, [2, 3, 64], [7, 7, 1]])
@pytest.mark.parametrize(("cpus", "workers"), [(1, 2), (1, 3), (2, 2), (3, 4)])
def test_wherever_the_starters_lie_every_worker_finds_its_place(machines, cpus, workers):
    resources = Resources(cpus=cpus, workers=workers)
    jobs = resources.at_once([(size, 0) for size in machines])
    if not jobs:
        return
    starters = jobs * starter(resources, jobs)["cpu"]
    assert starters <= SHARE * cpus + 1e-9
    for busiest in machines:  # all of them on one machine
        left = [size - (starters if size == busiest else 0) for size in machines]
        assert sum(int(size / worker(resources).cpus + 1e-9) for size in left) >= jobs * workers


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        (Resources(workers=5), "resources: the training asks for 5 workers, each with 1 CPU, the nodes have 4 CPU"),
        (
            Resources(workers=2, gpus=1),
            "resources: the training asks for 2 workers, each with 1 CPU and 1 GPU, the nodes have 4 CPU and 0 GPU",
        ),
    ],
)
def test_what_the_cluster_cannot_give_is_said_at_once(log, resources, line):
    with pytest.raises(UserError) as caught:
        fitting(resources, "the training")
    assert str(caught.value) == line
