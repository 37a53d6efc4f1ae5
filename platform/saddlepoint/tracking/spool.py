"""The spool: what is to be said to the tracking server, on local disk first.

    spool.jsonl   one event a line, only ever appended to: the whole history, arrived or not
    spool.sent    how many bytes of it have arrived; replaced atomically

An event appended survives kill -9 at once (it is in the operating system's hands), and a power cut from the
moment that it is offered for sending: so nothing is ever sent that this file could forget.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SaddleError
from ..files import write_text

Event = dict[str, Any]

log = logging.getLogger(__name__)


class Spool:
    """An append-only log of events with a cursor. One process at a time; one thread appends, one sends.

    Raises:
        SaddleError: another process has this spool open.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "spool.jsonl"
        self._cursor = folder / "spool.sent"
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise SaddleError(f"{folder} is in use by another process; end that first") from None
        self.size = self._cut_torn_line()  # bytes
        self.sent = min(self._read_cursor(), self.size)  # bytes

    def append(self, event: Event) -> None:
        """Raises OSError when the disk is full; the spool then is as before."""
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            os.ftruncate(self._file, start)
            raise
        self.size = start + len(line)

    def events(self, start: int = 0) -> Iterator[Event]:
        for event, _ in self._read(start):
            if event is not None:
                yield event

    def pending(self, limit: int) -> tuple[list[Event], int]:
        """At most `limit` events that have not arrived yet, and the offset to advance to once they have."""
        events: list[Event] = []
        offset = self.sent
        if offset < self.size:
            os.fsync(self._file)
        for event, end in self._read(offset):
            offset = end
            if event is not None:
                events.append(event)
            if len(events) == limit:
                break
        return events, offset

    def advance(self, offset: int) -> None:
        write_text(self._cursor, str(offset))
        self.sent = offset

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1  # a late call fails, instead of meeting another file that got this number

    def _read(self, start: int) -> Iterator[tuple[Event | None, int]]:
        """Each line from the byte `start` with the offset of its end; None for a line that is damaged."""
        with open(self.path, "rb") as file:
            offset = file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written at this moment
                offset += len(line)
                try:
                    event = json.loads(line)
                except ValueError:
                    log.error("%s: damaged line before byte %d, left out", self.path, offset)
                    event = None
                yield event, offset

    def _cut_torn_line(self) -> int:
        """A crash in the midst of a write leaves a line without an end: nobody has seen it, it goes."""
        with open(self.path, "rb") as file:
            size = whole = file.seek(0, os.SEEK_END)
            while whole > 0:
                start = max(0, whole - 65536)
                file.seek(start)
                newline = file.read(whole - start).rfind(b"\n")
                if newline >= 0:
                    whole = start + newline + 1
                    break
                whole = start
        if whole < size:
            os.ftruncate(self._file, whole)
        return whole

    def _read_cursor(self) -> int:
        try:
            return int(self._cursor.read_text())
        except (FileNotFoundError, ValueError):
            return 0  # all is sent again, which changes nothing
