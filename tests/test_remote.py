"""Files and folders on pyarrow's filesystems: its own local and mock ones, and S3 as moto serves it on loopback."""

import json
import os
import pickle
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from saddlepoint import remote
from saddlepoint.errors import SaddleError, UserError
from saddlepoint.files import write_bytes
from saddlepoint.remote import Outage, Remote, at_hand, discard, place

Refusal = Callable[[Callable[[], object]], str]


@pytest.fixture(params=["mock", "file", "s3"])
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """An empty folder."""
    if request.param == "s3":
        return Remote(f"{request.getfixturevalue('bucket')}/a/b")
    return Remote({"mock": f"mock:///{uuid.uuid4().hex}", "file": f"file://{tmp_path}/a/b"}[request.param])


def test_files_are_written_found_read_and_deleted(somewhere: Remote) -> None:
    folder, file = somewhere / "0007", somewhere / "0007" / "checkpoint.pt"
    assert not folder.exists()
    assert folder.glob("*") == []
    file.write_bytes(b"one")
    file.write_bytes(b"another")
    (folder / "seed-0" / "checkpoint.pt").write_bytes(bytes(5_000_000))
    (folder / "seed-0" / "a+b %41.json").write_bytes("é".encode())

    assert file.read_bytes() == b"another"
    assert (folder / "seed-0" / "a+b %41.json").read_text() == "é"
    assert file.exists()
    assert not file.is_dir()
    assert folder.is_dir()
    assert sorted(found.name for found in folder.glob("*")) == ["checkpoint.pt", "seed-0"]
    assert [found.name for found in somewhere.glob("[0-9]*")] == ["0007"]
    assert set(folder.rglob("checkpoint.pt")) == {file, folder / "seed-0" / "checkpoint.pt"}
    assert folder.files() == {
        file: 7, folder / "seed-0" / "checkpoint.pt": 5_000_000, folder / "seed-0" / "a+b %41.json": 2
    }  # fmt: skip

    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError) as error:
        file.unlink()
    assert error.value.filename == str(file)
    with pytest.raises(FileNotFoundError) as error:
        file.read_bytes()
    assert error.value.filename == str(file)

    folder.remove()
    folder.remove()
    assert not folder.exists()
    assert somewhere.files() == {}


@pytest.mark.parametrize("query", ["", "?project_id=p"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_name_is_a_uri(query: str, slash: str) -> None:
    folder = place(f"gs://bucket/pre/fix{slash}{query}")
    file = folder / "seed 0" / "checkpoint.pt"
    assert isinstance(file, Remote)
    assert str(file) == f"gs://bucket/pre/fix/seed%200/checkpoint.pt{query}"
    assert (file.name, file.parent.name, file.parent.parent) == ("checkpoint.pt", "seed 0", folder)
    assert len({file, place(str(file)), folder / "seed 0/checkpoint.pt", pickle.loads(pickle.dumps(file))}) == 1


def test_ray_is_given_what_pyarrow_calls_it(bucket: str) -> None:
    folder = Remote(f"{bucket}/pre/fix") / "a b"
    (folder / "x").write_bytes(b"1")
    filesystem = pickle.loads(pickle.dumps(folder.filesystem))
    assert isinstance(filesystem, fs.S3FileSystem)
    assert folder.path == f"{bucket.removeprefix('s3://')}/pre/fix/a b"
    assert Remote(bucket).path == bucket.removeprefix("s3://")
    assert filesystem.get_file_info(f"{folder.path}/x").size == 1


def test_a_path_stays_a_path_and_a_file_uri_becomes_one() -> None:
    assert place("runs/a b") == Path("runs/a b")
    assert place("file:///mnt/a%20b") == Path("/mnt/a b")


@pytest.mark.parametrize("text", ["s3://AKIA:sEcReT@bucket/x", "s3://sEcReT@bucket/x", "abfs://me:sEcReT@box/x"])
def test_a_uri_with_a_secret_is_refused_and_not_repeated(text: str, refusal: Refusal) -> None:
    said = refusal(lambda: place(text, "SADDLE_CHECKPOINTS"))
    assert said.startswith("SADDLE_CHECKPOINTS: ")
    assert "/x'" in said
    assert "sEcReT" not in said
    assert "AKIA" not in said
    assert ("AWS_SECRET_ACCESS_KEY" in said) == text.startswith("s3")


def test_a_user_who_is_no_secret_is_let_through() -> None:
    assert str(place("hdfs://me@namenode:8020/x")) == "hdfs://me@namenode:8020/x"
    assert str(place("abfs://box@account.dfs.core.windows.net/x")) == "abfs://box@account.dfs.core.windows.net/x"


class Flaky:
    """A filesystem of which the first calls, by name, fail."""

    def __init__(self, error: Exception, failures: int, calls: tuple[str, ...] = ()) -> None:
        self.inner, self.error, self.failures, self.calls = fs._MockFileSystem(), error, failures, calls
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.made.append(name)
            if self.failures and (not self.calls or name in self.calls):
                self.failures -= 1
                raise self.error
            return method(*arguments, **options)

        return call if callable(method) else method


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`flaky(error, failures)`: a file on a filesystem that fails so often; pauses are noted, not made."""

    def build(*terms: Any) -> Remote:
        filesystem = Flaky(*terms)
        monkeypatch.setattr(remote, "_opened", lambda root: (filesystem, ""))
        return Remote("flaky://bucket/a/b")

    now, pauses = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    build.pauses = pauses  # type: ignore[attr-defined]
    return build


TIMEOUT = OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout was reached")


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("create_dir", lambda file: file.write_bytes(b"x")),
        ("move", lambda file: file.write_bytes(b"x")),
        ("open_input_file", lambda file: file.read_bytes()),
        ("get_file_info", lambda file: file.exists()),
        ("get_file_info", lambda file: file.parent.glob("*")),
        ("delete_file", lambda file: file.unlink()),
        ("delete_dir", lambda file: file.parent.remove()),
    ],
)
def test_what_can_pass_is_tried_again(verb: str, call: Callable[[Remote], Any], flaky: Any) -> None:
    file = flaky(TIMEOUT, 0)
    file.write_bytes(b"x")
    once = call(file)
    file = flaky(TIMEOUT, 2, (verb,))
    file.filesystem.inner.create_dir("a")
    with file.filesystem.inner.open_output_stream("a/b") as stream:
        stream.write(b"x")
    assert call(file) == once
    assert flaky.pauses == [1.0, 2.0]
    assert not [name for name in file.filesystem.inner.get_file_info(fs.FileSelector("", recursive=True))
                if name.base_name.startswith(".")]  # fmt: skip


def test_what_does_not_pass_in_two_minutes_fails_in_one_line(flaky: Any) -> None:
    file = flaky(TIMEOUT, 10**6)
    with pytest.raises(Outage, match=r"^flaky://bucket: the storage fails: AWS Error NETWORK_CONNECTION$"):
        file.write_bytes(b"x")
    assert flaky.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error ACCESS_DENIED during HeadObject operation:\nNo response body."),
        OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body."),
        OSError("google::cloud::Status(PERMISSION_DENIED: me may not)"),
        OSError("GetProperties failed. Azure Error: [AuthorizationFailure] 403 no"),
        PermissionError(13, "no"),
    ],
    ids=str,
)
def test_a_refusal_is_said_at_once(error: Exception, flaky: Any) -> None:
    file = flaky(error, 10**6)
    with pytest.raises(SaddleError, match=r"^flaky://bucket: the storage refuses: .*(40\d\)?|DENIED|no)$") as refused:
        file.read_bytes()
    assert flaky.pauses == []
    with pytest.raises(SaddleError, match=f"^{re.escape(str(refused.value))}$"):  # the same trouble has the same name
        (file.parent / "another").write_bytes(b"x")


def test_google_says_in_words_that_a_file_is_not_there(flaky: Any) -> None:
    with pytest.raises(FileNotFoundError):
        flaky(OSError("google::cloud::Status(NOT_FOUND: no such object)"), 10**6).read_bytes()


def test_a_write_that_breaks_off_leaves_the_old_content_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Remote(f"file://{tmp_path}/a/b")
    file.write_bytes(b"old")

    def half(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(content[:2])
        raise PermissionError(13, "no")

    monkeypatch.setattr(remote, "_write", half)
    with pytest.raises(SaddleError):
        file.write_bytes(b"new content")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "a").iterdir()] == [("b", b"old")]


KILLED = """
import os, sys
from saddlepoint import remote
def killed(filesystem, path, content):
    stream = filesystem.open_output_stream(path)
    stream.write(content)
    os.write(1, b"written")
    os._exit(9)
remote._write = killed
remote.Remote(sys.argv[1]).write_bytes(bytes(11_000_000))  # two parts of an upload, and some
"""


@pytest.mark.parametrize("somewhere", ["file", "s3"], indirect=True)
def test_a_process_that_is_killed_leaves_the_old_content(somewhere: Remote) -> None:
    file = somewhere / "checkpoint.pt"
    file.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (9, b"written"), done.stderr
    assert file.read_bytes() == b"old"


def test_a_good_place_is_left_as_it_was(somewhere: Remote) -> None:
    somewhere.check("SADDLE_CHECKPOINTS")
    assert somewhere.files() == {}


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("s3://no-such-bucket/x", "NO_SUCH_BUCKET"),
        ("nope://bucket/x", "Unrecognized filesystem type"),
        ("s3://bucket/x?regoin=here", "Unexpected query parameter"),
    ],
)
def test_a_place_that_takes_nothing_is_refused_by_its_key(uri: str, why: str, bucket: str, refusal: Refusal) -> None:
    said = refusal(lambda: Remote(uri).check("SADDLE_CHECKPOINTS"))
    assert said.startswith(f"SADDLE_CHECKPOINTS: {uri!r} cannot be used: ")
    assert why in said
    assert "a-secret" not in said


def test_a_place_that_does_not_answer_is_refused_at_once(flaky: Any, refusal: Refusal) -> None:
    file = flaky(TIMEOUT, 10**6)
    said = refusal(lambda: file.check("--checkpoints"))
    assert said.startswith("--checkpoints: 'flaky://bucket/a/b' cannot be used: AWS Error NETWORK_CONNECTION")
    assert flaky.pauses == []


def test_scratch_files_are_discarded_and_never_waited_for(somewhere: Remote, tmp_path: Path, flaky: Any) -> None:
    for folder in (somewhere / "tune", tmp_path / "tune"):
        write_bytes(folder / "deep" / "x", b"1")
        discard(folder)
        discard(folder)
        assert not folder.exists()
    discard(flaky(TIMEOUT, 10**6))
    assert flaky.pauses == []


def test_what_is_at_hand_is_a_copy_for_a_while(somewhere: Remote, tmp_path: Path) -> None:
    (somewhere / "generator.json").write_bytes(b"{}")
    (somewhere / "deep" / "x").write_bytes(b"1")
    with at_hand(somewhere) as here:
        assert [(path.name, path.read_bytes()) for path in here.iterdir()] == [("generator.json", b"{}")]
    assert not here.exists()
    with at_hand(somewhere / "generator.json") as here:
        assert (here.name, here.read_bytes()) == ("generator.json", b"{}")
    with at_hand(tmp_path) as here:
        assert here == tmp_path
    with pytest.raises(FileNotFoundError), at_hand(somewhere / "nothing"):
        pass


def test_no_secret_is_pickled_or_printed(bucket: str) -> None:
    folder = Remote(f"{bucket}/x")
    (folder / "y").write_bytes(b"1")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "a-secret"
    assert b"a-secret" not in pickle.dumps(folder)
    assert "a-secret" not in repr(folder) + str(folder)


def test_a_uri_of_no_kind_is_the_users_mistake_wherever_it_is_used(refusal: Refusal) -> None:
    assert "nope://" in refusal(lambda: Remote("nope://bucket/x").read_bytes())
    with pytest.raises(UserError):
        Remote("nope://bucket/x").exists()


def test_it_is_a_value_that_json_and_dataclasses_take_as_they_take_a_path() -> None:
    @dataclass
    class Done:
        folders: list[Remote]

    assert json.dumps(asdict(Done([Remote("s3://bucket/x")])), default=str) == '{"folders": ["s3://bucket/x"]}'
    with pytest.raises(AttributeError):
        Remote("s3://bucket/x").uri = "s3://bucket/y"  # type: ignore[misc]
