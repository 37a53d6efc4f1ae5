"""What travels with a pipeline to a cluster, what is refused, and that it runs there from what has travelled alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from saddlepoint.errors import UserError
from saddlepoint.scaling.submission import Submitted
from saddlepoint.spec import Pipeline
from saddlepoint.workflows import folder as folder_room
from saddlepoint.workflows import submit as submit_room
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.submit import environment, own_modules, pack, portable, storage_folder, submit

Change = Callable[[str, Any], dict[str, Any]]
Refusal = Callable[[Callable[[], object]], str]
SERVER = "http://mlflow.example:5000"
HEAD = "http://head.example:8265"


class FakeJobs:
    """Hears what is submitted, instead of a cluster."""

    sent: dict[str, Any]

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def submit(self, id: str, command: str, *, folder: Path, **options: Any) -> None:
        type(self).sent = {"id": id, "command": command, "files": _files(folder), **options}
        type(self).sent["pipeline"] = (folder / "pipeline.yaml").read_text()

    def follow(self, id: str, write: Callable[[str], None]) -> Submitted:
        write("a line of the job\n")
        return Submitted(id, os.environ.get("FAKE_END", "SUCCEEDED"), "exit code 1, last available logs\nx", 1.0, 2.0)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeJobs]:
    """An empty working folder; everything is set as it should be; no cluster is asked."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_", "RAY_", "SADDLE_", "PG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submit_room, "Jobs", FakeJobs)
    monkeypatch.setattr("saddlepoint.scaling.submission.Jobs", FakeJobs)
    return FakeJobs


def test_what_is_sent(cluster: type[FakeJobs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-2")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/home/me/.aws/credentials")
    monkeypatch.setenv("HOME_OF_SECRETS", "no")
    pipeline = Pipeline.load("digits-wgan", ["search.trials=7"])
    found = submit(pipeline, HEAD, storage="/shared", pip=["psycopg2-binary"])
    sent = cluster.sent

    assert sent["id"] == found.job
    assert found.job.startswith("digits-wgan-")
    assert found.sweep == "/shared/sweeps/digits-wgan"
    assert sent["command"] == "exec python -m saddlepoint run pipeline.yaml"
    assert sent["pip"] == ["psycopg2-binary"]
    commit = sent["environment"].pop("SADDLE_COMMIT")
    assert commit
    assert sent["environment"] == {
        "MLFLOW_TRACKING_URI": SERVER,
        "MLFLOW_TRACKING_TOKEN": "secret-1",
        "AWS_SECRET_ACCESS_KEY": "secret-2",
        "SADDLE_STORAGE": "/shared",
        "SADDLE_CACHE": "/shared/cache",
        "SADDLE_PROGRESS": "lines",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }
    assert Pipeline.parse(yaml.safe_load(sent["pipeline"])) == pipeline
    assert {"saddlepoint/__main__.py", "saddlepoint/workflows/report/page.html.j2"} <= sent["files"]
    assert not any("__pycache__" in name for name in sent["files"])
    assert "secret" not in str([sent["notes"], sent["pipeline"], found])


def test_the_password_of_a_tracking_database_is_not_told(
    cluster: type[FakeJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret-3@db.example/mlflow")
    found = submit(Pipeline.load("digits-wgan"), HEAD, storage="/shared")
    assert "secret-3" in cluster.sent["environment"]["MLFLOW_TRACKING_URI"]
    assert "secret-3" not in str([cluster.sent["notes"], found])
    assert found.tracking == "postgresql://db.example/mlflow"


REFUSED: dict[str, tuple[list[str], dict[str, str], str, str]] = {
    "no tracking store": ([], {"MLFLOW_TRACKING_URI": ""}, "MLFLOW_TRACKING_URI: is not set", "http://HOST:PORT"),
    "an SQLite store": ([], {"MLFLOW_TRACKING_URI": "sqlite:///mine.db"}, "mine.db", "set it to a tracking server"),
    "a folder as store": ([], {"MLFLOW_TRACKING_URI": "./mlruns"}, "./mlruns", "http://HOST:PORT"),
    "a loopback server": ([], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}, "127.0.0.1", "as the cluster's nodes"),
    "a loopback S3": ([], {"MLFLOW_S3_ENDPOINT_URL": "http://localhost:9000"}, "MLFLOW_S3_ENDPOINT_URL", "localhost"),
    "a server that is anywhere": ([], {"MLFLOW_TRACKING_URI": "http://0.0.0.0:5000"}, "MLFLOW_TRACKING_URI", "0.0.0.0"),
    "a store on a socket": ([], {"MLFLOW_TRACKING_URI": "postgresql:///m?host=/tmp"}, "postgresql:///m", "a socket"),
    "half an address": ([], {"MLFLOW_TRACKING_URI": "http://[::1"}, "'http://[::1'", "names no server"),
    "half a ledger's": (["search.ledger='postgresql://[::1/d'"], {}, "search.ledger", "names no server"),
    "a ledger on a socket": (["search.ledger=postgresql+psycopg2:///ledger"], {}, "search.ledger", "not as a socket"),
    "an SQLite ledger": (["search.ledger=sqlite:///here.db"], {}, "search.ledger: 'sqlite:///here.db'", "leave it out"),
    "a loopback ledger": (["search.ledger=postgresql://u@localhost/d"], {}, "search.ledger", "not as localhost"),
    "a password": (["search.ledger=postgresql://u:secret@db/d"], {}, "postgresql://db/d", "PGPASSWORD"),
    "a folder of images": (["data={name: image_folder, path: pictures}"], {}, "data.path: 'pictures'", "/shared"),
    "one by its whole path": (["data={name: image_folder, path: HERE/pictures}"], {}, "data.path", "/shared"),
    "a file of a domain": (
        ["data={name: unpaired, x: {name: parquet, path: a/x}, y: {name: digits}}"], {}, "data.x.path: 'a/x'", "/shared"
    ),
    "weights of a score": (["objective.feature_weights=inception.pth"], {}, "objective.feature_weights", "/shared"),
    "a folder for checkpoints": ([], {"SADDLE_CHECKPOINTS": "file:///mnt/x"}, "SADDLE_CHECKPOINTS: ", "s3://BUCKET"),
    "checkpoints on loopback": (
        [], {"SADDLE_CHECKPOINTS": "s3://b/x?region=r&endpoint_override=127.0.0.1:9000"}, "SADDLE_CHECKPOINTS", "not as"
    ),
    "checkpoints on loopback, in full": (
        [], {"SADDLE_CHECKPOINTS": "s3://b?region=r&endpoint_override=http://localhost:9"}, "SADDLE_CHECKPOINTS", "not"
    ),
    "a secret in a URI": (
        [], {"SADDLE_CHECKPOINTS": "s3://AKIA:secret@b/x"}, "SADDLE_CHECKPOINTS: 's3://b/x'", "AWS_SECRET_ACCESS_KEY"
    ),
    "checkpoints nowhere": ([], {"SADDLE_CHECKPOINTS": "nope://b/x"}, "SADDLE_CHECKPOINTS: ", "Unrecognized"),
    "data on the head alone": (
        ["data={name: image_folder, path: pictures}"], {"SADDLE_CHECKPOINTS": "s3://b?region=r"}, "data.path", "bucket"
    ),
    "nothing to search": (["search=null"], {}, "search: is missing", "search.space"),
    "no such module": (["networks.critic.factory=nope.nets:Critic"], {}, "networks.critic.factory", "'nope'"),
    "no such data": (["data={name: 'nope:faces'}"], {}, "data.name: 'nope:faces'", "no module"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_cluster_could_not_see_is_refused(
    case: str, cluster: type[FakeJobs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "inception.pth").touch()
    changes, settings, key, right = REFUSED[case]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def attempt() -> None:
        pipeline = Pipeline.load("digits-wgan", [change.replace("HERE", str(tmp_path)) for change in changes])
        submit(pipeline, HEAD, storage="/shared")

    said = refusal(attempt)
    assert key in said
    assert right in said
    assert "secret" not in said


def test_what_lies_on_the_storage_or_on_the_cluster_alone_is_taken(
    cluster: type[FakeJobs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faces").mkdir()
    for data in (f"{{name: image_folder, path: {tmp_path}/faces}}", "{name: image_folder, path: /on/the/cluster}",
                 "{name: parquet, path: 's3://bucket/x'}"):  # fmt: skip
        pipeline = Pipeline.load("digits-wgan", [f"data={data}", f"search.ledger=sqlite:///{tmp_path}/ledger.db"])
        assert portable(pipeline, tmp_path, "head.example") == SERVER
    far = Pipeline.load("digits-wgan", ["search.ledger=postgresql+psycopg2:///ledger?host=db.example"])
    assert portable(far, tmp_path, "head.example") == SERVER
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert portable(Pipeline.load("digits-wgan"), tmp_path, "127.0.0.1") == "http://127.0.0.1:5000"


@pytest.mark.parametrize(("given", "right"), [(None, "SADDLE_STORAGE"), ("here", "absolute")])
def test_without_a_shared_folder_there_is_no_job(given: str | None, right: str, refusal: Refusal) -> None:
    assert right in refusal(lambda: storage_folder(given))


def test_with_checkpoints_in_a_bucket_the_storage_is_the_heads(
    cluster: type[FakeJobs], saddle: Callable[..., int], monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("SADDLE_CHECKPOINTS", "s3://another/x?region=here")
    bucket = "s3://bucket/pre?region=here"
    words = ("submit", "digits-wgan", "--address", HEAD, "--storage", "/on/the/head", "--checkpoints", bucket)
    assert saddle(*words, "--detach") == 0
    sent = cluster.sent["environment"]
    assert sent["SADDLE_CHECKPOINTS"] == bucket
    assert sent["SADDLE_CACHE"] == "s3://bucket/pre/cache?region=here"
    assert sent["SADDLE_STORAGE"] == "/on/the/head"
    assert "head that outlives" in refusal(lambda: submit(Pipeline.load("digits-wgan"), HEAD, checkpoints=bucket))


def test_a_storage_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SADDLE_STORAGE", "/mnt/all")
    assert storage_folder(None) == Path("/mnt/all")
    assert storage_folder("/mnt/other") == Path("/mnt/other")
    assert environment(SERVER, Path("/mnt/other"))["SADDLE_STORAGE"] == "/mnt/other"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's working folder: a package of nets that imports a module beside it, a data function, and more."""
    place = tmp_path / "mine"
    (place / "zoo_of_mine").mkdir(parents=True)
    (place / "zoo_of_mine" / "__init__.py").touch()
    (place / "zoo_of_mine" / "nets.py").write_text(
        "import beside_of_mine\nfrom saddlepoint.networks.mlp import Critic\n\n\n"
        "def critic(sample_shape, widths=(16,)):\n    return Critic(sample_shape, list(widths))\n"
    )
    (place / "zoo_of_mine" / "table.csv").write_text("1,2\n")
    (place / "beside_of_mine.py").write_text("WIDTH = 3\n")
    (place / "sets_of_mine.py").write_text(
        "from saddlepoint.data import load\n\n\ndef rings():\n    return load('ring', train=200, heldout=100)\n"
    )
    (place / "never_imported_of_mine.py").touch()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield place
    for name in [name for name in sys.modules if "_of_mine" in name]:
        del sys.modules[name]


@pytest.fixture
def own(modules: Path, changed: Change) -> Pipeline:
    content = changed("data", {"name": "sets_of_mine:rings"})
    content["networks"]["critic"] = {"factory": "zoo_of_mine.nets:critic"}
    content["search"]["space"]["parameters"]["networks.critic.factory"] = {
        "type": "choice", "choices": ["mlp_critic", "zoo_of_mine.nets:critic"], "default": "zoo_of_mine.nets:critic"
    }  # fmt: skip
    return Pipeline.parse(content)


def test_the_users_own_modules_are_found_and_nothing_else(own: Pipeline, modules: Path) -> None:
    assert own_modules(own) == [modules / "beside_of_mine.py", modules / "sets_of_mine.py", modules / "zoo_of_mine"]
    assert own_modules(Pipeline.load("digits-wgan")) == []


def test_a_module_that_only_the_search_space_names_travels(modules: Path, changed: Change) -> None:
    content = changed("search/space/parameters/networks.critic.factory", {
        "type": "choice", "choices": ["mlp_critic", "zoo_of_mine.nets:critic"], "default": "mlp_critic"
    })  # fmt: skip
    assert modules / "zoo_of_mine" in own_modules(Pipeline.parse(content))


def test_a_package_full_of_data_is_not_sent(own: Pipeline, modules: Path, tmp_path: Path, refusal: Refusal) -> None:
    with open(modules / "zoo_of_mine" / "faces.bin", "wb") as file:
        file.truncate(101_000_000)  # of nothing
    said = refusal(lambda: pack(own, tmp_path))
    assert said.startswith(f"{modules / 'zoo_of_mine'}: ")
    assert "101 MB" in said


def test_what_is_packed_trains_by_itself(own: Pipeline, tmp_path: Path) -> None:
    """In another folder, from an environment in which neither the user's modules nor this checkout can be seen."""
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(own, packed)
    assert {"pipeline.yaml", "beside_of_mine.py", "sets_of_mine.py", "zoo_of_mine/table.csv"} <= _files(packed)
    assert "never_imported_of_mine.py" not in _files(packed)
    program = (
        "import sys; sys.path[:] = [''] + [p for p in sys.path if 'platform' not in p]\n"
        "import saddlepoint; print(saddlepoint.__file__)\n"
        "from saddlepoint.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "train", "pipeline.yaml", "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(
        command,
        cwd=packed,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert Path(first) == packed / "saddlepoint" / "__init__.py"
    assert json.loads(rest)["scores"]["emd"] > 0


def test_sweeps_lie_on_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    pipeline = Pipeline.load("digits-wgan")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SADDLE_STORAGE", raising=False)
    assert Folder.of(pipeline).path == tmp_path / "sweeps" / "digits-wgan"
    monkeypatch.setenv("SADDLE_STORAGE", str(tmp_path / "shared"))
    assert "every node" in refusal(lambda: Folder.of(pipeline))  # not made: a node without the mount would go on alone
    (tmp_path / "shared").mkdir()
    folder = Folder.of(pipeline)
    assert folder.path == tmp_path / "shared" / "sweeps" / "digits-wgan"
    folder.begin(pipeline)
    monkeypatch.chdir("/")
    assert Folder.existing("digits-wgan").path == folder.path
    assert folder_room.home() == tmp_path / "shared" / "sweeps"


def test_a_followed_submit_ends_as_its_job_does(
    cluster: type[FakeJobs],
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("submit", "digits-wgan", "--address", HEAD, "--storage", "/shared")
    assert saddle(*words) == 0
    said = capsys.readouterr()
    assert "a line of the job\n" in said.out
    assert said.err == ""
    monkeypatch.setenv("FAKE_END", "FAILED")
    assert saddle(*words, "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "FAILED"
    first, last = said.err.splitlines()
    assert first == "a line of the job"
    assert last.startswith("saddle: job digits-wgan-")
    assert "FAILED: exit code 1; look: saddle logs digits-wgan-" in last
    assert last.endswith(f" --address {HEAD}")
    assert saddle(*words, "--detach", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sweep"] == "/shared/sweeps/digits-wgan"


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(
    cluster: type[FakeJobs],
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: FakeJobs, id: str, write: Callable[[str], None]) -> Submitted:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeJobs, "follow", interrupted)
    assert saddle("submit", "digits-wgan", "--address", HEAD, "--storage", "/shared") == 1
    job, words = cluster.sent["id"], ("--address", HEAD)
    assert capsys.readouterr().err.endswith(
        f"come back: saddle logs {job} --follow --address {HEAD}; end it: saddle stop {job} --address {HEAD}\n"
    )
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"{HEAD}/")  # which is the same one
    assert saddle("submit", "digits-wgan", "--storage", "/shared", *words) == 1
    job = cluster.sent["id"]
    assert capsys.readouterr().err.endswith(f"saddle logs {job} --follow; end it: saddle stop {job}\n")


def test_what_a_job_and_its_folder_are_called_is_shown_as_it_is(
    cluster: type[FakeJobs],
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names that mean something to rich: a style, its end, a picture."""
    odd = "/x/[bold]y[/]/:smile:"
    job = Submitted("[red]1", "FAILED", f"no {odd}", 1.0, 2.0, {"sweep": odd})
    monkeypatch.setattr(FakeJobs, "all", lambda self: [job], raising=False)
    monkeypatch.setattr(FakeJobs, "job", lambda self, id: job, raising=False)
    assert saddle("submit", "digits-wgan", "--address", HEAD, "--storage", odd, "--detach") == 0
    assert f"its sweep is {odd}/sweeps/digits-wgan," in capsys.readouterr().out
    assert saddle("jobs", "--address", HEAD) == 0
    said = capsys.readouterr().out
    assert odd in said
    assert "[red]1" in said
    assert saddle("status", "[red]1", "--address", HEAD) == 0
    said = capsys.readouterr().out
    assert said.startswith("[red]1")
    assert said.count(odd) == 2


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (("submit", "digits-wgann", "--address", HEAD), "did you mean 'digits-wgan'?"),
        (("submit", "digits-wgan", "--set", "training.roundz=5", "--address", HEAD), "did you mean 'rounds'?"),
        (("submit", "digits-wgan"), "http://HEAD:8265"),
        (("submit", "digits-wgan", "--address", "head:6379"), "'head:6379' should be http://HEAD:8265"),
        (("submit", "digits-wgan", "--address", HEAD), "--storage"),
    ],
)
def test_a_wrong_submit_is_one_line_and_exit_code_2(
    words: tuple[str, ...],
    right: str,
    cluster: type[FakeJobs],
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert saddle(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert right in said.err


def test_a_user_error_is_raised_before_the_cluster_is_asked(
    cluster: type[FakeJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(address: str | None) -> FakeJobs:
        raise AssertionError("asked")

    monkeypatch.setattr(submit_room, "Jobs", never)
    with pytest.raises(UserError, match=r"networks\.critic\.factory"):
        submit(_with_factory("digits"), HEAD, storage="/shared")


def _with_factory(name: str) -> Pipeline:
    """A pipeline that was valid when it was loaded, and whose module is gone since."""
    loaded = Pipeline.load("digits-wgan")
    critic = loaded.networks["critic"].model_copy(update={"factory": f"gone_of_mine.{name}:Critic"})
    return loaded.model_copy(update={"networks": {**loaded.networks, "critic": critic}})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_on_a_cluster_that_loses_a_node_a_submitted_sweep_comes_to_a_champion(
    benchmark: Callable[..., ModuleType],
) -> None:
    """`python benchmarks/cluster` in short: three nodes, two trials at once, one node killed in their midst."""
    checks = benchmark("cluster").run(workers=2, trials=3, rounds=1500, whole=False)
    assert checks.passed, checks.table()
    assert len(checks.rows) >= 16  # and one more where each node has an address of its own
