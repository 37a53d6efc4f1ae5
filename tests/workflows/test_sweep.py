from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from saddlepoint.errors import UserError
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.query import TrackedRun, children, history, sweeps
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.sweep import Interrupted, sweep

from .conftest import in_process

Small = Callable[..., Pipeline]
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "diverged": "FAILED", "failed": "FAILED"}


def tracked() -> dict[str, TrackedRun]:
    [parent] = sweeps(None)
    assert parent.status != "RUNNING"
    return {run.key: run for run in children(None, parent.sweep)}


def test_ledger_and_mlflow_tell_the_same_story(workplace: Path, small: Small) -> None:
    pipeline = small()
    trials = sweep(pipeline)
    runs = tracked()

    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials[0].values == pipeline.search.space.defaults()  # type: ignore[union-attr]
    assert set(runs) == {f"trial-{trial.number:04d}" for trial in trials}
    for trial in trials:
        run = runs[f"trial-{trial.number:04d}"]
        assert run.status == STATUS[trial.state]
        assert run.params["seed"] == str(trial.seed)
        for name, value in trial.values.items():
            assert float(run.params[name]) == value
        assert dict(history(None, run.run_id, "fid")) == trial.intermediate
        if trial.value is not None:
            assert run.metrics["final/fid"] == trial.value
    assert len({trial.seed for trial in trials}) == 4
    assert any(trial.state == "complete" for trial in trials)


def test_a_history_has_each_logged_round_once(workplace: Path, small: Small) -> None:
    sweep(small("search.trials=1"))
    [run] = tracked().values()

    assert [step for step, _ in history(None, run.run_id, "emd")] == [2, 4, 6, 8, 10, 12]
    assert [step for step, _ in history(None, run.run_id, "fid")] == [4, 8, 12]


def test_the_parent_names_data_code_and_floor(workplace: Path, small: Small) -> None:
    sweep(small("search.trials=1"))
    [parent] = sweeps(None)

    assert 2 < parent.metrics["floor/fid"] < 8  # papers: 4.1 ± 0.5 over splits
    assert parent.tags["saddle.protocol.samples"] == "898"
    assert len(parent.tags["saddle.protocol.data_fingerprint"]) == 64
    assert parent.tags["saddle.commit"] == "none"  # the working folder is no checkout
    assert parent.params["training.rounds"] == "12"


def test_interrupted_anywhere_it_goes_on_and_ends_as_if_it_never_was(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_room, "execute", partial(in_process, interrupt_after=4))
    for _ in range(2):  # a third of it each time
        with pytest.raises(Interrupted, match="--resume digits-wgan"):
            sweep(small())
        assert {run.status for run in tracked().values()} <= {"FINISHED", "KILLED", "FAILED"}
    monkeypatch.setattr(sweep_room, "execute", in_process)
    broken = {trial.number: trial for trial in sweep(small())}
    runs = {key: run.status for key, run in tracked().items()}
    points = {key: history(None, run.run_id, "fid") for key, run in tracked().items()}

    (workplace / "whole").mkdir()
    monkeypatch.chdir(workplace / "whole")
    monkeypatch.setattr(sweep_room, "execute", in_process)
    for trial in sweep(small()):
        twin = broken[trial.number]
        assert (trial.values, trial.seed, trial.state) == (twin.values, twin.seed, twin.state)
        assert trial.intermediate == twin.intermediate  # bit for bit
        assert trial.value == twin.value
    assert {key: run.status for key, run in tracked().items()} == runs
    assert {key: history(None, run.run_id, "fid") for key, run in tracked().items()} == points


def test_repeated_it_runs_nothing_and_with_more_trials_it_extends(workplace: Path, small: Small) -> None:
    first = sweep(small())
    assert sweep(small()) == first
    longer = sweep(small("search.trials=6"))
    assert longer[:4] == first
    assert [trial.number for trial in longer] == list(range(6))


def test_another_pipeline_under_the_same_name_is_refused(workplace: Path, small: Small) -> None:
    sweep(small("search.trials=1"))
    with pytest.raises(UserError, match=r"training\.rounds: 12 there, 16 here.*--set name="):
        sweep(small("search.trials=1", "training.rounds=16"))


def test_a_diverging_configuration_is_infeasible_and_said_in_words(workplace: Path, small: Small) -> None:
    space = workplace / "wild.yaml"
    space.write_text("game: wgan\nparameters:\n  lr_generator: {type: fixed, value: 1.0e+30}\n")
    [trial] = sweep(small("search.trials=1", f"search.space={space}"))
    [run] = tracked().values()

    assert trial.state == "diverged"
    assert trial.value is None
    assert run.status == "FAILED"
    assert run.tags["saddle.outcome"] == "diverged"
    assert run.tags["saddle.reason"] == trial.reason
    assert trial.reason is not None
    assert "round" in trial.reason


BROKEN = """
import torch
from saddlepoint.networks.mlp import Critic

class Moody(Critic):
    calls = 0

    def forward(self, x):
        Moody.calls += 1
        if Moody.calls > 20:
            raise ValueError("not today")
        return super().forward(x)
"""


def test_a_bug_in_a_users_net_fails_the_trial_with_its_traceback(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "moody_nets.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(workplace))
    [trial] = sweep(small("search.trials=1", "networks.critic.factory=moody_nets:Moody"))
    [run] = tracked().values()

    assert trial.state == "failed"
    assert trial.reason == "ValueError: not today"
    assert run.status == "FAILED"
    [traceback] = workplace.glob("mlruns/**/traceback.txt")
    assert "moody_nets.py" in traceback.read_text()


def test_only_complete_trials_keep_a_generator_and_none_a_checkpoint(workplace: Path, small: Small) -> None:
    trials = sweep(small())
    kept = {path.parent.name for path in workplace.glob("sweeps/digits-wgan/trials/*/generator.safetensors")}

    assert kept == {f"{trial.number:04d}" for trial in trials if trial.state == "complete"}
    assert not list(workplace.glob("sweeps/**/checkpoint.pt"))


def test_wrong_input_leaves_nothing_behind(workplace: Path, small: Small) -> None:
    with pytest.raises(UserError, match=r"training\.batch_size: 5000 is larger"):
        sweep(small("training.batch_size=5000"))
    assert list(workplace.iterdir()) == []
