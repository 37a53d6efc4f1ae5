"""Ray's Jobs API: a folder and a command are sent to a cluster over HTTP; the job is followed, found and stopped."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.scaling.cluster import SET_A_TOKEN, TAKES_ANOTHER, token

ADDRESS = "RAY_API_SERVER_ADDRESS"
LIMITS = (5.0, 60.0)  # seconds to connect, and to wait for an answer; Ray's client alone would wait for ever
GREETING = "/api/version"  # the first question, which a dashboard answers by itself
GREETING_LIMITS = (5.0, 10.0)
PATIENCE = 60.0  # seconds that a followed cluster may be silent
QUIET = 30.0  # seconds without a word, after which we ask anew: a head that vanished does not hang up
STOPPING = 60.0  # seconds from the stop signal to the kill
_SETUP = "runtime_env setup failed"
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Submitted:
    """A job as its cluster knows it. Times are seconds since 1970."""

    id: str
    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED
    message: str
    started: float | None
    ended: float | None
    notes: dict[str, str] = field(default_factory=dict)  # what its submitter wrote down

    @property
    def over(self) -> bool:
        return self.status in _OVER

    @property
    def reason(self) -> str:
        """The message in a line: without the log's tail; of an installation that fails, what pip said last."""
        said = re.findall(r"^\s*ERROR: (.+)$", self.message, re.MULTILINE)
        if self.message.startswith(_SETUP) and said:
            return f"its environment cannot be made on the nodes: {said[-1]}"
        return self.message.partition("\n")[0].partition(", last available logs")[0]


class Jobs:
    """The jobs of the cluster whose dashboard listens at `address` (None: $RAY_API_SERVER_ADDRESS).

    Raises UserError, within seconds, if there is no address, no cluster at it, or none that takes our token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = checked_address(address)
        self._token = token()
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token.secret}"}
        try:
            with self._asking():
                self._client = _Client(self.address, headers)
        except SaddleError as error:
            raise UserError(str(error)) from error.__cause__

    def submit(
        self,
        id: str,
        command: str,
        *,
        folder: Path,
        environment: Mapping[str, str],
        pip: Sequence[str] = (),
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Sends the folder, in a copy of which every process of the job works, and starts the command on the head.

        pip: requirements that each node installs into an environment of the job's own. A job that is to stop
        first hears SIGINT, as by Ctrl-C.
        """
        stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": f"{STOPPING:.0f}"}
        runtime: dict[str, Any] = {"working_dir": str(folder), "env_vars": {**environment, **stop}}
        if pip:
            runtime["pip"] = list(pip)
        with self._asking():
            self._client.submit_job(
                submission_id=id, entrypoint=command, runtime_env=runtime, metadata=dict(notes or {})
            )

    def all(self) -> list[Submitted]:
        """Every job that was submitted to this cluster, the youngest first."""
        with self._asking():
            found = [_plain(job) for job in self._client.list_jobs() if job.submission_id is not None]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def job(self, id: str) -> Submitted:
        """Raises UserError, with the nearest id, if there is no such job."""
        if not id.strip(".") or set("/?#%") & set(id):  # as part of an address, this would be another question
            raise unknown("job", id, [job.id for job in self.all()])
        try:
            with self._asking():
                return _plain(self._client.get_job_info(id))
        except _Refused as error:
            if error.status != 404:
                raise
            raise unknown("job", id, [job.id for job in self.all()]) from None

    def log(self, id: str) -> str:
        """All that the job has printed so far."""
        self.job(id)
        with self._asking():
            return str(self._client.get_job_logs(id))

    def follow(self, id: str, write: Callable[[str], None]) -> Submitted:
        """Gives `write` the job's log from its beginning, as it grows, until the job is over.

        Raises SaddleError if the cluster is silent for a minute. Ctrl-C ends the following, not the job.
        """
        self.job(id)
        return asyncio.run(self._follow(id, write))

    async def _follow(self, id: str, write: Callable[[str], None]) -> Submitted:
        shown, silent = 0, None  # characters; since when nobody answers

        def show(text: str, begin: int) -> None:
            nonlocal shown
            if fresh := text[max(shown - begin, 0) :]:
                write(fresh)
            shown = max(shown, begin + len(text))

        while True:
            begin = 0  # a connection that broke begins again at the log's beginning
            if silent is None:
                async with aclosing(self._tail(id)) as tail:
                    while (text := await self._next(tail)) is not None:
                        show(text, begin)
                        begin += len(text)
            try:  # also where a proxy lets no such connection through
                job, whole = await asyncio.to_thread(lambda: (self.job(id), self.log(id)))
            except (_Refused, _Silent):
                silent = silent or time.monotonic()
                if time.monotonic() - silent > PATIENCE:
                    raise
            else:
                silent = None
                show(whole, 0)
                if job.over:
                    return job
            await asyncio.sleep(1.0)

    async def _next(self, tail: AsyncIterator[str]) -> str | None:
        """None if no more comes from this connection."""
        with suppress(TimeoutError, _Refused, _Silent):
            return await asyncio.wait_for(anext(tail, None), QUIET)
        return None

    async def _tail(self, id: str) -> AsyncGenerator[str, None]:
        with self._asking():
            async for text in self._client.tail_job_logs(id):
                yield text

    def stop(self, id: str) -> Submitted:
        """Stops a job and waits until it is at rest; one that is over stays what it is."""
        if (job := self.job(id)).over:
            return job
        with self._asking():
            self._client.stop_job(id)
        until = time.monotonic() + STOPPING + LIMITS[1]
        while not (job := self.job(id)).over:
            if time.monotonic() > until:
                raise SaddleError(f"job {id} was told to stop, and is still {job.status} after {STOPPING:.0f} s")
            time.sleep(0.5)
        return job

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Ray's client talks to the cluster in this block: without log lines, and with errors of one line."""
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        except AuthenticationError:
            raise UserError(self._unwelcome()) from None
        except (OSError, aiohttp.ClientError, KeyError) as error:
            if getattr(error, "status", None) in (401, 403):
                raise UserError(self._unwelcome()) from None
            raise _Silent(f"no Ray cluster answers at {self.address}: {_reason(error)}") from error
        except (RuntimeError, ValueError) as error:
            raise _Refused(f"the Ray cluster at {self.address} refuses: {_reason(error)}", error) from error
        finally:
            logging.disable(level)

    def _unwelcome(self) -> str:
        if self._token is None:
            return f"the cluster at {self.address} asks for a token: {SET_A_TOKEN}"
        return f"{self._token.source}: the cluster at {self.address} takes another token; {TAKES_ANOTHER}"


class _Silent(SaddleError):
    """Nobody answers, or nobody who speaks as a Ray cluster does."""


class _Refused(SaddleError):
    """The cluster answered that it will not; `status`: HTTP's number for it, if the answer told it."""

    def __init__(self, message: str, error: Exception) -> None:
        super().__init__(message)
        _, _, rest = str(error).partition("status code ")
        number = rest.partition(":")[0].strip()
        self.status = int(number) if number.isdigit() else None


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own, which waits no longer than these limits, and at the address that it is given: Ray's would rather go
    to the one in the environment."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        before = os.environ.get(ADDRESS)
        os.environ[ADDRESS] = address
        try:
            super().__init__(address, headers=headers)
        finally:
            if before is None:
                del os.environ[ADDRESS]
            else:
                os.environ[ADDRESS] = before

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        limits = GREETING_LIMITS if endpoint == GREETING else LIMITS
        return super()._do_request(method, endpoint, **{"timeout": limits, **options})


def checked_address(address: str | None) -> str:
    """The dashboard's address, as given or from the environment. Raises UserError if it is none."""
    key = "--address" if address else ADDRESS
    address = address or os.environ.get(ADDRESS)
    if not address:
        raise UserError(f"--address: is missing; give http://HEAD:8265 of the cluster, or set {ADDRESS}")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:  # a bracket that does not close
        good = False
    if not good:
        raise UserError(f"{key}: {address!r} should be http://HEAD:8265, the dashboard of the cluster's head")
    return address.rstrip("/")


def _plain(job: Any) -> Submitted:
    started, ended = (None if stamp is None else stamp / 1e3 for stamp in (job.start_time, job.end_time))
    return Submitted(
        job.submission_id, str(job.status.value), job.message or "", started, ended, dict(job.metadata or {})
    )


def _reason(error: BaseException) -> str:
    """The innermost cause (requests wraps urllib3's errors, which wrap the system's), of a traceback the last line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(getattr(error, "strerror", None) or error).strip(" .\n") or type(error).__name__
    return text.splitlines()[-1][:300]
