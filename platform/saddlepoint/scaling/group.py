"""One job on several processes: Ray Train starts them as one torch.distributed group, and frees what they held.

What the first process reports goes through a mailbox to the caller, and its answer back to all of them: a process
goes on, and writes its checkpoint, only after the report was taken. (Train's own reports are neither answered nor
prompt.) A job that is stopped, or done, returns in every process, and Train takes the group down in the regular way.

Train keeps no checkpoints here: a training's own folder, which all nodes see, is what it goes on from, with whatever
number of processes. Nor does Train repeat anything: that is for the caller to decide, as of any job.
"""

import fcntl
import logging
import os
import socket
import threading
import uuid
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any

import ray
import torch
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.placement_group import (
    PlacementGroup,
    PlacementGroupID,
    placement_group_table,
    remove_placement_group,
)
from torch import distributed as dist

from saddlepoint.errors import SaddleError
from saddlepoint.remote import Place, discard
from saddlepoint.scaling.jobs import End, LastReport, Report, Resources
from saddlepoint.scaling.mailbox import Post, make
from saddlepoint.scaling.settings import settled, stored
from saddlepoint.training.team import here

SILENCE = 24 * 3600  # seconds that a process waits for the others: one scores while they do
PATIENCE = 10.0  # seconds for a group that is ended at once
SIOCGIFADDR = 0x8915  # Linux: the address of an interface
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon Train sees that the processes are done, or one is dead
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(SILENCE),  # for room: others may be at work on the cluster
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process, for signals that a training has no use for
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def play(
    run: Callable[[Any, Report], None],
    payload: Any,
    hear: Report,
    *,
    resources: Resources,
    storage: Place,
    mailbox: Any = None,
    name: str = "",
) -> End:
    """Calls `run(payload, report)` in `resources.workers` processes, and `hear` with what the first one reports.

    Every process makes the same reports: they wait in each until `hear` has returned. If it raises SystemExit, as
    `report` then does in every process, the group ends before this is raised again. Any other exception of `hear`,
    Ctrl-C included, ends the group at once.

    Returns "done", "lost" or "memory"; an exception of `run` is raised here, with its traceback as the cause.
    `storage` is a folder for Train's scratch files, shared by all nodes. `mailbox` may serve several groups, each with
    a `name` of its own; if none is given, one is made.
    """
    own = make() if mailbox is None else None
    post = Post(own or mailbox, name or uuid.uuid4().hex)
    scratch = storage / f"train-{post.name}"
    fit = _Fit(partial(_member, run, payload, post, bool(resources.gpus)), post, resources, scratch)
    fit.start()
    try:
        try:
            answer = None
            while (letter := post.ask("exchange", answer)) is not None:
                hear(cloudpickle.loads(letter))
                answer = False
        except SystemExit:
            post.ask("close")
            fit.join()
            raise
        except BaseException:
            post.ask("close")
            clear([post.name])
            fit.join(PATIENCE)
            raise
        fit.join()
        return _end(fit.error, post.ask("last_words"), hear, resources.workers)
    finally:
        if own is not None:
            ray.kill(own)
        discard(scratch)


def clear(names: Iterable[str]) -> None:
    """Ends what is left of these groups, and frees what they held, also if those that could have done it are dead:
    Ray itself keeps a placement group until the end of its driver."""
    marks = {_mark(name) for name in names}
    for key, group in placement_group_table().items():
        if group["state"] != "REMOVED" and any(part.get("memory") in marks for part in group["bundles"].values()):
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(key))))


def _mark(name: str) -> int:
    """So many bytes of memory, a megabyte at most, are part of each worker's share: the one thing by which a group's
    placement group, which Train makes without a name, can be told from others."""
    return zlib.crc32(name.encode()) % 2**20 + 1


def _end(error: Exception | None, words: list[tuple[str, bytes]], hear: Report, workers: int) -> End:
    """What the dead, else what those say that failed by themselves, else the news that a connection broke."""
    deaths = [death for death in _failures(error) if isinstance(death, RayActorError | OutOfMemoryError)]
    if any(isinstance(death, OutOfMemoryError) or "running low on memory" in str(death) for death in deaths):
        return End("memory", "its node ran out of memory, and Ray ended a worker")
    own = [(kind, word) for kind, word in words if kind != "left alone"]
    if not deaths and own:
        kind, word = own[0]
        if kind == "failed":
            raise cloudpickle.loads(word)
        hear(cloudpickle.loads(word))
        return End("done")
    if error is None:
        return End("done")
    logging.getLogger("ray.train").warning("a group ended: %s", error)
    if isinstance(error, WorkerGroupError):
        return End("lost", f"worker lost: one of its {workers} processes was killed or crashed")
    return End("lost", f"its {workers} processes did not start, or were lost: {_line(error)}")


def _failures(error: Exception | None) -> list[BaseException]:
    if not isinstance(error, WorkerGroupError):
        return []
    return [getattr(failure, "health_check_failure", failure) for failure in error.worker_failures.values()]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Fit(threading.Thread):
    """Train's part, beside the caller, who listens meanwhile."""

    def __init__(self, work: Callable[[], None], post: Post, resources: Resources, scratch: Place) -> None:
        super().__init__(name="saddlepoint-train", daemon=True)
        self.work, self.post, self.resources, self.scratch = work, post, resources, scratch
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with settled(SETTINGS):
                self._trainer().fit()
        except Exception as error:
            self.error = error
        with suppress(RayActorError):  # nobody listens any more
            self.post.ask("close")

    def _trainer(self) -> TorchTrainer:
        cpus, gpus = self.resources.cpus, self.resources.gpus
        needs = {"CPU": cpus, "memory": _mark(self.post.name)} | ({"GPU": gpus} if gpus else {})
        return _Trainer(
            self.work,
            torch_config=_Torch(backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=SILENCE),
            scaling_config=ScalingConfig(
                num_workers=self.resources.workers, use_gpu=bool(gpus), resources_per_worker=needs
            ),
            run_config=RunConfig(
                name=self.scratch.name,
                **stored(self.scratch.parent),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


class _Torch(TorchConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def _choose_interface() -> None:
    """gloo would take the one whose address the host's name stands for: on many systems that is a loopback, behind
    which no other node finds it. The address at which Ray knows the node is one that they find."""
    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address; or this is not Linux, and one is no more than guessed
                found = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, name.encode().ljust(256, b"\0"))
                if socket.inet_ntoa(found[20:24]) == address:
                    os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """Without two processes that Train would start besides: one hands out data sets, the other clears up after a group,
    asking a dashboard that a local Ray has not got."""

    def _create_default_callbacks(self) -> list[Any]:
        needless = ("DatasetsCallback", "PlacementGroupCleanerCallback")
        return [each for each in super()._create_default_callbacks() if type(each).__name__ not in needless]


def _member(run: Callable[[Any, Report], None], payload: Any, post: Post, on_gpu: bool) -> None:
    """What each process does."""
    team = here()
    if on_gpu:
        torch.cuda.set_device(get_device())  # Train lets every process see all GPUs of its node

    def report(values: dict[str, Any]) -> None:
        if team.tell(post.ask("report", cloudpickle.dumps(values)) if team.leads else None):
            raise SystemExit

    try:
        run(payload, report)
    except SystemExit:
        return
    except LastReport as last:
        word = "reported", cloudpickle.dumps(last.values)
    except Exception as error:
        word = "left alone" if _left_alone(error) else "failed", _sealed(error)
    else:
        return
    post.ask("say", *word)
    raise SaddleError("the caller knows why")  # Train ends the others, which may wait for this one for ever


def _left_alone(error: Exception) -> bool:
    """Whether it is the loss of another process that this one felt."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def _sealed(error: Exception) -> bytes:
    """With its traceback, which alone would not cross to another process."""
    try:
        sealed: bytes = cloudpickle.dumps(ExceptionWithTraceback(error, error.__traceback__))
        cloudpickle.loads(sealed)
    except Exception:  # what it holds, or how it is built, does not let it be pickled
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        sealed = cloudpickle.dumps(ExceptionWithTraceback(plain, error.__traceback__))
    return sealed
