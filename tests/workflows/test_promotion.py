"""One whole run on real digits: what it confirmed, what it promoted, what the champion is good for."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from saddlepoint.errors import SaddleError
from saddlepoint.generator import load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.confirm import DEFAULTS
from saddlepoint.workflows.generate import generate, load
from saddlepoint.workflows.run import Run, run

from .conftest import SMALL, in_process

CHAMPION = "models:/digits-generator@champion"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished run, in the working folder of all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("promotion"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sweep_room, "execute", in_process)
        patch.setattr(sweep_room.cluster, "running", lambda **_: sweep_room.nullcontext())
        yield run(Pipeline.load("digits-wgan", SMALL))


def test_a_run_ends_in_a_champion_that_draws_digits(done: Run) -> None:
    assert done.promotion is not None
    assert done.promotion.moved
    assert done.promotion.version == 1
    assert done.picture == Path.cwd() / "sweeps" / "digits-wgan" / "champion.png"
    champion = load(CHAMPION)
    z = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    mlflow.set_tracking_uri(f"sqlite:///{Path.cwd()}/mlflow.db")
    served = mlflow.pyfunc.load_model(CHAMPION).predict(z)
    assert served.shape == (64, 1, 8, 8)
    np.testing.assert_array_equal(served, champion(torch.from_numpy(z)).numpy())


def test_confirmation_retrains_the_best_and_the_defaults_on_the_same_fresh_seeds(done: Run) -> None:
    found = done.confirmation
    best = min(done.trials, key=lambda trial: trial.value if trial.value is not None else np.inf)
    assert [c.values for c in found.candidates if c.name != DEFAULTS] == [best.values]
    assert len(found.candidates) == 2
    [seeds] = {tuple(candidate.seeds) for candidate in found.candidates}
    assert len(set(seeds)) == 2
    assert not {trial.seed for trial in done.trials} & set(seeds)
    means = [candidate.mean("fid") for candidate in found.candidates]
    assert means == sorted(means)
    for candidate in found.candidates:
        first, second = candidate.scores
        assert first["fid"] != second["fid"]  # two seeds, two trainings
        assert candidate.estimates["fid"].mean == pytest.approx((first["fid"] + second["fid"]) / 2)
        assert all((folder / "generator.safetensors").exists() for folder in candidate.folders)


def test_a_score_is_a_mean_over_draws_none_of_which_the_training_made(done: Run) -> None:
    candidate = done.confirmation.winner
    draws = json.loads((candidate.folders[0] / "draws.json").read_text())["draws"]
    fids = [draw["fid"] for draw in draws]
    assert len(set(fids)) == 5
    assert candidate.scores[0]["fid"] == pytest.approx(np.mean(fids))
    assert "emd" not in draws[0]  # costly: from the training's end
    assert candidate.scores[0]["emd"] > 0


def test_the_shipped_generator_is_the_best_seed_of_the_winner(done: Run) -> None:
    winner = done.confirmation.winner
    best = min(range(2), key=lambda place: winner.scores[place]["fid"])

    shipped = load(CHAMPION).networks["generator"].state_dict()
    kept = load_generator(winner.folders[best]).networks["generator"].state_dict()
    assert all(torch.equal(shipped[name], kept[name]) for name in kept)


def test_repeating_a_finished_run_changes_nothing(done: Run) -> None:
    second = run(Pipeline.load("digits-wgan", SMALL))

    assert second.trials == done.trials
    assert second.confirmation == done.confirmation
    assert second.promotion is not None
    assert not second.promotion.moved
    assert [version.version for version in registry.models(None, "digits-generator")] == [1]


def test_samples_are_the_same_in_every_format(done: Run) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    outputs = [Path("a.png"), Path("b.npz"), Path("c.parquet")]
    paths = generate(CHAMPION, outputs, n=10, seed=3)

    wanted = load(CHAMPION).sample(10, seed=3).numpy()
    assert [path.name for path in paths] == ["a.png", "b.npz", "c.parquet"]
    np.testing.assert_array_equal(np.load("b.npz")["samples"], wanted)
    table = pq.read_table("c.parquet")
    flat = np.array(table["sample"].to_pylist(), dtype=np.float32)
    shape = [int(side) for side in table.schema.metadata[b"shape"].split(b",")]
    np.testing.assert_array_equal(flat.reshape(10, *shape), wanted)
    picture = np.asarray(Image.open("a.png").convert("L"))
    first = (wanted[0, 0] + 1) * 127.5  # the top left image, behind a border of one enlarged pixel
    scale = picture.shape[1] // (4 * 9 + 1)
    got = picture[scale : 9 * scale : scale, scale : 9 * scale : scale]
    np.testing.assert_allclose(got, first, atol=0.51)


def test_force_is_no_way_around_another_shape(done: Run) -> None:
    Path("big.py").write_text(
        "import torch\nfrom saddlepoint.data import Dataset\n\n"
        "def squares():\n"
        "    x = torch.rand(400, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1\n"
        "    return Dataset.build('squares', 'image', x[:200], x[200:])\n"
    )
    other = Pipeline.load("digits-wgan", [
        *SMALL, "name=other", "data.name=big:squares", "objective.features=pixels", "objective.metric=kid",
        "search.trials=1", "confirm.seeds=1",
    ])  # fmt: skip
    with pytest.raises(SaddleError, match="another model name"):
        run(other)
