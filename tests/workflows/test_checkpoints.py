"""Trials that lie apart from their sweep: in a bucket, on an S3 server on loopback."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.files import write_bytes
from saddlepoint.generator import CARD, WEIGHTS, load_generator, save_generator
from saddlepoint.remote import Outage, Place, Remote
from saddlepoint.scaling.jobs import End
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.training import checkpoint
from saddlepoint.training.loop import Report
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import CHECKPOINT, Training
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows import workers
from saddlepoint.workflows.disk import Disk, remove, size
from saddlepoint.workflows.evaluate import evaluate
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.generate import load
from saddlepoint.workflows.reconcile import reconcile
from saddlepoint.workflows.run import Run, run
from saddlepoint.workflows.sweep import Interrupted, sweep
from saddlepoint.workflows.train import train_here

from .conftest import SMALL, in_process

Small = Callable[..., Pipeline]
UNPRUNED = ("search.pruner=none", "search.sampler=random")  # values by number alone, in whatever order trials end


def names(place: Place) -> set[str]:
    """All files of the trials."""
    if isinstance(place, Remote):
        return {file.path.removeprefix(f"{place.path}/") for file in place.files()}
    found = (path.relative_to(place) for path in place.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] in ("trials", "confirm")}


def place_of(name: str) -> Place:
    return Folder.existing(name).place


@pytest.mark.slow
def test_interrupted_it_goes_on_from_the_bucket_in_a_shell_that_knows_nothing_of_it(
    workplace: Path, small: Small, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("search.trials=2", "search.keep=1", "training.rounds=12", *UNPRUNED)
    whole = sweep(small("name=whole", *changes))

    monkeypatch.setenv("SADDLE_CHECKPOINTS", f"{bucket}/ours")
    monkeypatch.setattr(sweep_room, "execute", partial(in_process, interrupt_after=3))
    with pytest.raises(Interrupted):
        sweep(small(*changes))
    place = place_of("digits-wgan")
    assert isinstance(place, Remote)
    assert str(place).startswith(f"{bucket}/ours/digits-wgan-")
    assert names(place) == {f"trials/0000/{name}" for name in (CHECKPOINT, CARD, WEIGHTS)}
    kept = checkpoint.load(place / "trials" / "0000" / CHECKPOINT)
    assert kept is not None
    assert kept["round"] == 8

    monkeypatch.setenv("SADDLE_CHECKPOINTS", "s3://of-another-sweep/x")
    rounds: list[int] = []

    def watched(source: Any, work: Any, **_: Any) -> Any:
        hear = source.result
        monkeypatch.setattr(source, "result", lambda n, told: rounds.append(told["round"]) or hear(n, told))
        return in_process(source, work)

    monkeypatch.setattr(sweep_room, "execute", watched)
    again = sweep(small(*changes))
    assert rounds[0] == 12  # and neither 4 nor 8
    assert [(t.values, t.intermediate, t.value) for t in again] == [(t.values, t.intermediate, t.value) for t in whole]
    assert names(place) == names(place_of("whole")) == {
        f"trials/{min(again, key=lambda t: t.value or 0.0).number:04d}/{name}" for name in (CARD, WEIGHTS)
    }  # fmt: skip
    assert not (workplace / "sweeps" / "digits-wgan" / "trials").exists()

    kept_at = place / next(iter(names(place))).rpartition("/")[0]
    assert load(str(kept_at)).sample(3).shape == (3, 1, 8, 8)
    assert evaluate(str(kept_at), samples=50).scores["emd"] > 0


def test_reconcile_agrees_with_what_is_in_the_bucket(
    workplace: Path, small: Small, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SADDLE_CHECKPOINTS", bucket)
    sweep(small("search.trials=1", "training.rounds=4", *UNPRUNED))
    monkeypatch.delenv("SADDLE_CHECKPOINTS")
    place = place_of("digits-wgan")
    whole = names(place)
    for left in (f"trials/0000/{CHECKPOINT}", f"trials/0007/{WEIGHTS}", "trials/0008/draws.json", f".{CARD}.half"):
        write_bytes(place / left, b"left by a crash")
    assert reconcile("digits-wgan").repaired == [
        "digits-wgan: 2 half removed folders are gone",
        "digits-wgan: 1 half written files are gone",
        "digits-wgan: trial-0000 has ended; its checkpoint is gone",
    ]
    assert names(place) == whole
    assert reconcile("digits-wgan").repaired == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("s3://no-such-bucket/x", "NO_SUCH_BUCKET"),
        ("nope://bucket/x", "Unrecognized filesystem"),
        ("s3://me:sEcReT@bucket/x", "AWS_SECRET_ACCESS_KEY"),
        ("no/such/folder", "should be a URI"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_written(
    given: str, why: str, workplace: Path, saddle: Callable[..., int], bucket: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SADDLE_CHECKPOINTS", given)
    assert saddle("sweep", "digits-wgan") == 2
    said = capsys.readouterr().err
    assert said.startswith("saddle: SADDLE_CHECKPOINTS: ")
    assert why in said
    assert said.count("\n") == 1
    assert "sEcReT" not in said
    assert list(workplace.iterdir()) == []


def test_two_sweeps_of_one_name_have_two_places(
    bucket: str, tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SADDLE_CHECKPOINTS", bucket)
    places = []
    for root in (tmp_path / "mine", tmp_path / "yours"):
        folder = Folder.of(small(), root)
        folder.begin(small(), elsewhere=folder.apart())
        places.append(folder.place)
        assert folder.apart() is None
        folder.begin(small(), elsewhere=Remote("s3://another/place"))
        assert Folder(root / "digits-wgan").place == places[-1]
    assert len(set(places)) == 2
    monkeypatch.setenv("SADDLE_CHECKPOINTS", str(tmp_path))
    beside = Folder.of(small("name=beside"), tmp_path / "mine")
    beside.begin(small(), elsewhere=beside.apart())
    assert isinstance(beside.place, Path)
    assert beside.place.parent == tmp_path
    assert beside.place.is_dir()  # which a worker asks for that is to write there


@pytest.fixture
def trained(toy: Callable[..., Pipeline], toy_setup: Setup) -> Callable[[Place], None]:
    """`trained(folder)`: leaves a generator."""

    def write(folder: Place) -> None:
        training = Training(toy(), 0, folder, toy_setup)
        save_generator(folder, training.generator.networks, training.card)

    return write


def test_wherever_a_removal_is_cut_short_no_half_generator_stands_and_the_next_command_ends_it(
    trained: Callable[[Place], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Remote(f"mock:///{uuid.uuid4().hex}/trials")
    folder = parent / "0007"
    ways, unlink = set(), Remote.unlink
    live = {f"0008/{name}" for name in (CARD, WEIGHTS, CHECKPOINT, f"piece-0/{WEIGHTS}")}  # its piece was half removed
    for name in live:
        write_bytes(parent / name, b"x")
    for cut in range(7):
        for seed in ("seed-0", "seed-1"):
            trained(folder / seed)
            write_bytes(folder / seed / "draws.json", b"{}")
        left = cut

        def killed(call: Callable[[Remote], None], file: Remote, **terms: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionResetError
            call(file, **terms)

        with monkeypatch.context() as patch:
            patch.setattr(Remote, "unlink", lambda file, **terms: killed(unlink, file, **terms))

            def one_by_one(place: Remote) -> None:  # as object storage may do it, in an order of its own
                for file in sorted(place.files(), key=lambda file: (file.name == "draws.json", file.uri)):
                    file.unlink()

            patch.setattr(Remote, "remove", one_by_one)
            try:
                remove(folder)
            except ConnectionResetError:
                ways.add("cut")
            else:
                ways.add("done")
        for seed in ("seed-0", "seed-1"):
            if (folder / seed / CARD).exists():
                load_generator(folder / seed)  # whole: nothing of it is gone
            else:
                with pytest.raises(UserError, match=r"holds no generator: generator\.json is missing"):
                    load_generator(folder / seed)
        begun = len(folder.files()) < 2 * 3
        Disk(parent, cap=None, need=0)
        assert folder.exists() == (not begun), cut
        folder.remove()
    assert {file.path.removeprefix(f"{parent.path}/") for file in parent.files()} == live
    assert ways == {"cut", "done"}


def test_a_cap_counts_what_is_in_the_bucket(bucket: str) -> None:
    parent = Remote(f"{bucket}/trials")
    for number, content in ((3, 40), (5, 30)):
        write_bytes(parent / f"{number:04d}" / CARD, bytes(content))
    assert size(parent) == 70
    disk = Disk(parent, cap=200, need=60)
    assert disk.there() == {3, 5}
    assert disk.room([5, 3], live={1})
    assert disk.there() == {3, 5}
    assert disk.room([5, 3], live={1, 2})
    assert disk.there() == set()
    with pytest.raises(SaddleError, match=r"search\.disk_gb"):
        Disk(parent, cap=50, need=60).room([], set())


def test_an_outage_ends_the_sweep_in_a_line_and_the_same_command_goes_on(
    workplace: Path, toy_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_content["search"] |= {"trials": 3, "pruner": "none", "sampler": "random"}
    pipeline = Pipeline.parse(toy_content)
    monkeypatch.setenv("SADDLE_CHECKPOINTS", f"mock:///{uuid.uuid4().hex}")
    patiently, heard, down = Remote._patiently, [], False

    def asked(file: Remote, *terms: Any, **options: Any) -> Any:
        if down:
            raise Outage("mock://: the storage fails: it is down")
        return patiently(file, *terms, **options)

    def breaking(source: Any, work: Any, **_: Any) -> Any:
        hear = source.result

        def result(number: int, told: dict[str, Any]) -> bool:
            nonlocal down
            heard.append(number)
            down = heard.count(1) == 2
            return bool(hear(number, told))

        monkeypatch.setattr(source, "result", result)
        return in_process(source, work)

    monkeypatch.setattr(Remote, "_patiently", asked)
    monkeypatch.setattr(sweep_room, "execute", breaking)
    with pytest.raises(
        SaddleError, match=r"^mock://: the storage fails: it is down; when it is back, the same command"
    ):
        sweep(pipeline)
    down = False
    monkeypatch.setattr(sweep_room, "execute", in_process)
    trials = sweep(pipeline)
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert [list(trial.intermediate) for trial in trials] == [[4, 8, 12]] * 3
    assert {name[:11] for name in names(place_of("toy"))} == {f"trials/{n:04d}" for n in range(3)}


@contextmanager
def unseen(pipeline: Pipeline) -> Iterator[Callable[[Report], None]]:
    yield lambda report: None


def test_what_several_workers_train_lies_apart_too_and_is_found_again(
    toy: Callable[..., Pipeline], workplace: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storages: list[Place] = []

    def alone(run: Any, payload: Any, hear: Any, *, storage: Place, **_: Any) -> End:
        storages.append(storage)
        run(payload, hear)
        return End("done")

    monkeypatch.setattr(workers, "ready", lambda pipeline, folder: nullcontext())
    monkeypatch.setattr(workers, "play", alone)
    here = train_here(toy(), Path("alone"), progress=unseen)
    assert here.folder == workplace / "alone"
    monkeypatch.setenv("SADDLE_CHECKPOINTS", bucket)
    done = train_here(toy({"resources.workers": 2}), Path("it"), progress=unseen)
    assert isinstance(done.folder, Remote)
    assert str(done.folder).startswith(f"{bucket}/it-")
    assert storages == [done.folder]
    assert names(done.folder) == {CHECKPOINT, CARD, WEIGHTS}
    assert done.scores == here.scores
    assert {path.name for path in Path("it").iterdir()} == {"checkpoints.txt", "tracking"}
    monkeypatch.delenv("SADDLE_CHECKPOINTS")
    assert train_here(toy(), Path("it"), progress=unseen).folder == done.folder  # with another number of workers, too


LONGER = [*SMALL, *UNPRUNED, "training.rounds=60", "training.evaluate_every=20", "search.trials=2", "confirm.seeds=1"]


def start(place: Path, **settings: str) -> subprocess.Popen[bytes]:
    changes = [part for change in LONGER for part in ("--set", change)]
    with open(place / "out.txt", "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "saddlepoint", "run", "digits-wgan", *changes],
            cwd=place, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **settings},
        )  # fmt: skip


@pytest.mark.slow
def test_killed_a_run_on_ray_goes_on_in_the_bucket_and_equals_one_that_lies_here(workplace: Path, bucket: str) -> None:
    process = start(workplace, SADDLE_CHECKPOINTS=bucket)
    deadline = time.monotonic() + 200
    while not (begun := Remote(bucket).rglob(CHECKPOINT)):
        assert process.poll() is None, (workplace / "out.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = checkpoint.load(begun[0])
    assert kept is not None
    assert kept["round"] >= 20
    process = start(workplace)
    assert process.wait(timeout=300) == 0, (workplace / "out.txt").read_text()

    whole: Run = run(Pipeline.load("digits-wgan", [*LONGER, "name=whole"]))
    assert whole.promotion is not None
    assert (whole.promotion.version, whole.promotion.moved) == (2, False)
    assert "its weights are those of version 1, bit for bit" in whole.promotion.reason
    first, second = registry.models(None, "digits-generator")
    assert first.tags["saddle.weights"] == second.tags["saddle.weights"]

    assert names(Remote(bucket)) == {f"{place_of('digits-wgan').name}/{name}" for name in names(place_of("whole"))}
    here = workplace / "sweeps" / "digits-wgan"
    assert not [path for path in here.rglob("*") if path.name in (CHECKPOINT, CARD, WEIGHTS, "trials", "confirm")]
    for name in names(place_of("whole")):
        if name.endswith(WEIGHTS):
            ours, theirs = (load_generator((place_of(s) / name).parent) for s in ("digits-wgan", "whole"))
            for one, other in zip(*(g.networks["generator"].parameters() for g in (ours, theirs)), strict=True):
                assert torch.equal(one, other)
