from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from saddlepoint.generator import load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.workflows.confirm import DEFAULTS, confirm
from saddlepoint.workflows.generate import generate, load
from saddlepoint.workflows.promote import promote
from saddlepoint.workflows.run import run
from saddlepoint.workflows.sweep import opened

Small = Callable[..., Pipeline]
GOOD = ("game.hyperparameters.lr_critic=1.5e-3", "game.hyperparameters.lr_generator=1.5e-3")


def test_a_run_ends_in_a_champion_that_draws_digits(workplace: Path, small: Small) -> None:
    done = run(small())

    assert done.promotion is not None
    assert done.promotion.moved
    assert done.promotion.version == 1
    assert done.picture == workplace / "sweeps" / "digits-wgan" / "champion.png"
    champion = load("models:/digits-generator@champion")
    z = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    mlflow.set_tracking_uri(f"sqlite:///{workplace}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/digits-generator@champion").predict(z)
    assert served.shape == (64, 1, 8, 8)
    np.testing.assert_array_equal(served, champion(torch.from_numpy(z)).numpy())


def test_repeating_a_finished_run_changes_nothing(workplace: Path, small: Small) -> None:
    first, second = run(small()), run(small())

    assert second.trials == first.trials
    assert second.confirmation == first.confirmation
    assert second.promotion is not None
    assert not second.promotion.moved
    assert [version.version for version in registry.models(None, "digits-generator")] == [1]


def test_confirmation_retrains_the_best_and_the_defaults_on_the_same_fresh_seeds(workplace: Path, small: Small) -> None:
    with opened(small()) as sweep:
        sweep.search_on()
        result = confirm(sweep)
        searched = {trial.seed for trial in sweep.ledger.trials()}

    by_name = {candidate.name: candidate for candidate in result.candidates}
    assert DEFAULTS in by_name
    assert len(by_name) == 2
    assert all(len(candidate.scores) == 2 for candidate in result.candidates)
    means = [candidate.mean("fid") for candidate in result.candidates]
    assert means == sorted(means)
    first, second = by_name[DEFAULTS].scores
    assert first["fid"] != second["fid"]  # two seeds, two trainings
    orders = [folder / "generator.safetensors" for folder in by_name[DEFAULTS].folders]
    assert all(path.exists() for path in orders)
    assert len(searched) == 4


def test_the_alias_moves_only_for_a_better_challenger(workplace: Path, small: Small) -> None:
    """Three sweeps, one model: a start, a worse one, a better one. Better: more rounds at a good rate."""
    space = workplace / "one.yaml"

    def settle(name: str, rate: float, rounds: int, force: bool = False) -> tuple[int, bool, str]:
        parameters = "\n".join(f"  {p}: {{type: fixed, value: {rate}}}" for p in ("lr_critic", "lr_generator"))
        space.write_text(f"game: wgan\nparameters:\n{parameters}\n  clip: {{type: fixed, value: 0.04}}\n")
        changes = (f"name={name}", f"search.space={space}", f"training.rounds={rounds}", "search.trials=1")
        with opened(small(*changes, f"training.evaluate_every={rounds // 2}", "confirm.seeds=1")) as sweep:
            sweep.search_on()
            made = promote(sweep, confirm(sweep), force=force)
        return made.version, made.moved, made.reason

    def champion() -> int:
        reigning = registry.champion(None, "digits-generator")
        assert reigning is not None
        return reigning.version

    assert settle("start", 1e-3, 60)[:2] == (1, True)
    version, moved, reason = settle("worse", 1e-5, 8)
    assert (version, moved, champion()) == (2, False, 1)
    assert "does not beat" in reason
    assert "of version 1" in reason
    version, moved, reason = settle("better", 1e-3, 240)
    assert (version, moved, champion()) == (3, True, 3)
    assert " beats " in reason
    version, moved, reason = settle("worst", 1e-5, 4, force=True)
    assert (version, moved, champion()) == (4, True, 4)
    assert reason.endswith("forced")
    tags = registry.models(None, "digits-generator")[-1].tags
    assert tags["saddle.promotion"] == reason


def test_samples_are_the_same_in_every_format(workplace: Path, small: Small) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    done = run(small("search.trials=1"))
    assert done.promotion is not None
    outputs = [Path("a.png"), Path("b.npz"), Path("c.parquet")]
    paths = generate("models:/digits-generator@champion", outputs, n=10, seed=3)

    wanted = load("models:/digits-generator@champion").sample(10, seed=3).numpy()
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


def test_the_shipped_generator_is_the_best_seed_of_the_winner(workplace: Path, small: Small) -> None:
    done = run(small())
    winner = done.confirmation.winner
    best = min(range(2), key=lambda place: winner.scores[place]["fid"])

    shipped = load("models:/digits-generator@champion").networks["generator"].state_dict()
    kept = load_generator(winner.folders[best]).networks["generator"].state_dict()
    assert all(torch.equal(shipped[name], kept[name]) for name in kept)


def test_force_is_no_way_around_another_shape(workplace: Path, small: Small) -> None:
    from saddlepoint.errors import SaddleError

    run(small("search.trials=1", "confirm.seeds=1"))
    (workplace / "big.py").write_text(
        "import torch\nfrom saddlepoint.data import Dataset\n\n"
        "def squares():\n"
        "    x = torch.rand(400, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1\n"
        "    return Dataset.build('squares', 'image', x[:200], x[200:])\n"
    )
    other = small(
        "name=other", "data.name=big:squares", "objective.features=pixels", "objective.metric=kid",
        "search.trials=1", "confirm.seeds=1",
    )  # fmt: skip
    with pytest.raises(SaddleError, match="another model name"):
        run(other)
