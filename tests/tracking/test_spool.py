"""The spool alone: nothing lost, nothing half, one process at a time."""

import os
import resource

import pytest

from saddlepoint.errors import SaddleError
from saddlepoint.tracking.spool import Spool


def event(number: int) -> dict[str, object]:
    return {"kind": "log", "run": "trial", "step": number}


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def reopened(spool: Spool) -> Spool:
    spool.close()
    return Spool(spool.path.parent)


def test_pending_is_what_was_appended_and_not_yet_advanced(spool):
    for number in range(5):
        spool.append(event(number))
    events, offset = spool.pending(3)
    assert events == [event(0), event(1), event(2)]
    assert spool.pending(3)[0] == events, "only advance moves the cursor"
    spool.advance(offset)
    events, offset = spool.pending(3)
    assert events == [event(3), event(4)]
    spool.advance(offset)
    assert spool.pending(3) == ([], spool.size)


def test_a_new_process_goes_on_at_the_cursor(spool):
    for number in range(4):
        spool.append(event(number))
    spool.advance(spool.pending(3)[1])
    again = reopened(spool)
    assert list(again.events()) == [event(number) for number in range(4)]
    assert again.pending(9)[0] == [event(3)]
    again.close()


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_last_line_is_cut_off_and_the_next_line_stands_alone(spool, cut):
    spool.append(event(0))
    whole = spool.size
    spool.append(event(1))
    os.truncate(spool.path, spool.size - cut)
    again = reopened(spool)
    assert again.size == whole == os.path.getsize(spool.path)
    again.append(event(2))
    assert list(again.events()) == [event(0), event(2)]
    again.close()


def test_a_torn_line_longer_than_one_read_is_cut_off(spool):
    spool.append(event(0))
    whole = spool.size
    spool.append({"text": "x" * 200_000})
    os.truncate(spool.path, spool.size - 1)
    again = reopened(spool)
    assert again.size == whole
    again.close()


def test_a_file_that_is_one_torn_line_becomes_empty(spool):
    spool.append(event(0))
    os.truncate(spool.path, 5)
    again = reopened(spool)
    assert again.size == 0
    again.close()


def test_a_damaged_line_is_left_out_and_does_not_stop_the_rest(spool):
    for number in range(3):
        spool.append(event(number))
    content = spool.path.read_bytes().splitlines(keepends=True)
    content[1] = b"\0" * (len(content[1]) - 1) + b"\n"
    spool.path.write_bytes(b"".join(content))
    events, offset = spool.pending(9)
    assert events == [event(0), event(2)]
    assert offset == spool.size


@pytest.mark.parametrize("cursor", ["", "nonsense", "999999"])
def test_a_cursor_that_makes_no_sense_loses_nothing_new(spool, cursor):
    spool.append(event(0))
    (spool.path.parent / "spool.sent").write_text(cursor)
    again = reopened(spool)
    again.append(event(1))
    assert event(1) in again.pending(9)[0]
    again.close()


def test_two_processes_cannot_share_a_spool(spool):
    with pytest.raises(SaddleError, match="in use by another process") as caught:
        Spool(spool.path.parent)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_whole_lines_only(spool):
    spool.append(event(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size + 10, hard))  # the next line fits in part
    try:
        with pytest.raises(OSError, match=r".+"):
            spool.append(event(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.path.getsize(spool.path) == spool.size
    spool.append(event(2))
    assert list(spool.events()) == [event(0), event(2)]
