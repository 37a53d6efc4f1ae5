"""The one thread that empties the spool into MLflow, through outages, for as long as it takes."""

import json
import logging
import re
import shutil
import threading
import time
from pathlib import Path

import requests
from mlflow.exceptions import MlflowException

from .delivery import Delivery, Undeliverable
from .spool import Event, Spool

EVENTS = 500  # in one batch; between two batches the cursor moves
SHRINK, GROW = (
    8,
    2,
)  # the batch after a failure, after a success: even a server that loses every tenth call gets on
LINGER = 0.5  # seconds between two batches: what comes meanwhile goes together
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts: the first, doubled up to the last

# These speak of the request, not of the server's health. A request that gets one is made once more and, when
# a store that answers other questions refuses it again, put aside. All else is waited out: no answer, 5xx,
# too many requests, no permission, a full disk.
REFUSALS = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
HEALTH_STATUS = {401, 403, 407, 408, 425, 429}  # those of 4xx that may pass

log = logging.getLogger(__name__)


class Sender(threading.Thread):
    """A daemon: the process may end at any time, what was not sent stays in the spool. It never raises."""

    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        super().__init__(name="saddlepoint-tracking", daemon=True)
        self.trouble: str | None = None  # why nothing arrives at present
        self._spool, self._delivery = spool, delivery
        self._changed = threading.Condition()
        self._hurry = 0  # how many threads wait in `drain`
        self._stop_now = False

    def drain(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds for all that was appended before to arrive; False if it has not."""
        target = self._spool.size
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._stop_now or self._spool.sent >= target, timeout)
                return self._spool.sent >= target
            finally:
                self._hurry -= 1

    def stop(self, timeout: float) -> None:
        """The thread leaves, and closes the spool, once it is out of the call that it is in."""
        with self._changed:
            self._stop_now = True
            self._changed.notify_all()
        self.join(timeout)

    def run(self) -> None:
        pause, limit = 0.0, EVENTS
        try:
            while not self._stop_now:
                try:
                    more = self._send_batch(limit)
                    pause, limit = 0.0, min(limit * GROW, EVENTS)
                except Exception as error:
                    more, limit = False, max(limit // SHRINK, 1)
                    pause = min(2 * pause or PAUSE, LONGEST_PAUSE)
                    self._complain(error)
                if not more:
                    self._wait(pause)
        finally:
            self._spool.close()

    def _send_batch(self, limit: int) -> bool:
        """True if there may be more at once."""
        if self._spool.sent == self._spool.size:
            return False
        events, offset = self._spool.pending(limit)
        self._deliver(events)
        with self._changed:
            self._spool.advance(offset)
            self._changed.notify_all()
        for event in events:
            if (blob := self._blob(event)) is not None:
                shutil.rmtree(blob, ignore_errors=True)
        if self.trouble is not None:
            self.trouble = None
            log.info("tracking works again")
        return len(events) == limit

    def _wait(self, pause: float) -> None:
        """Whoever drains cuts the wait short; a store in trouble keeps a pause of at most a second."""
        with self._changed:
            if pause:
                least = min(pause, 2 * PAUSE)
                self._changed.wait_for(lambda: self._stop_now, least)
                self._changed.wait_for(lambda: self._stop_now or self._hurry > 0, pause - least)
            else:
                self._changed.wait_for(self._urgent, LINGER)

    def _urgent(self) -> bool:
        return self._stop_now or (self._hurry > 0 and self._spool.sent < self._spool.size)

    def _deliver(self, events: list[Event]) -> None:
        """Sends all; what the store refuses is found by halving."""
        try:
            self._delivery.send(events)
        except Exception as error:
            if not _refused(error):
                raise
            if len(events) > 1:
                middle = len(events) // 2
                self._deliver(events[:middle])
                self._deliver(events[middle:])
            elif isinstance(error, Undeliverable):
                self._put_aside(events[0], error)
            else:
                self._once_more(events[0])

    def _once_more(self, event: Event) -> None:
        self._delivery.probe()
        time.sleep(PAUSE)
        try:
            self._delivery.send([event])
        except Exception as error:
            if not _refused(error):
                raise
            self._put_aside(event, error)

    def _put_aside(self, event: Event, error: Exception) -> None:
        folder = self._spool.path.parent
        with open(folder / "spool.rejected.jsonl", "a") as file:
            file.write(json.dumps({"error": str(error), "event": event}) + "\n")
        if (blob := self._blob(event)) is not None and blob.exists():
            (folder / "rejected").mkdir(exist_ok=True)
            blob.replace(folder / "rejected" / blob.name)
        log.error("%s of %s is refused, kept in spool.rejected.jsonl: %s", event["kind"], event["run"], error)

    def _blob(self, event: Event) -> Path | None:
        return self._delivery.outbox / event["blob"] if "blob" in event else None

    def _complain(self, error: Exception) -> None:
        if self.trouble is None:
            log.warning("tracking waits, nothing is lost (%s): %s", self._spool.path, error)
        self.trouble = " ".join(str(error).split())


def _refused(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        status = re.search(r"failed with error code (\d+)", str(error))
        return error.error_code in REFUSALS or (status is not None and _is_refusal(int(status[1])))
    if isinstance(error, requests.HTTPError):
        return error.response is not None and _is_refusal(error.response.status_code)
    if isinstance(error, OSError):
        return False
    return isinstance(error, ValueError | TypeError | LookupError | AttributeError)  # this event breaks the code


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in HEALTH_STATUS
