"""A generator logged, registered, moved to by an alias, and drawn from in another process and folder."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from saddlepoint.errors import UserError
from saddlepoint.generator import save_generator
from saddlepoint.networks import build
from saddlepoint.tracking import registry
from saddlepoint.tracking.tracker import Tracker

OPTIONS = {"z_dim": 6, "sample_shape": [1, 8, 8], "widths": [16, 16], "norm": "batch"}
TAGS = {"saddle.sweep": "digits-wgan-1", "saddle.key": "trial-0003", "fid": "7.5"}


@pytest.fixture
def run(uri, tmp_path):
    with Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits") as tracker:
        tracker.start_run("trial-0003", name="trial-0003", params={}, tags={})
        assert tracker.drain(30)
        return tracker.run_id("trial-0003")


def package(folder, factory="mlp_generator", options=OPTIONS, seed=0):
    """A package as training writes it, with batch statistics that a fresh network does not have."""
    torch.manual_seed(seed)
    network = build(factory, options)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(32, options["z_dim"]) + 1)
    card = {
        "game": {"name": "wgan", "structure": {"z_dim": options["z_dim"], "n_critic": 1}},
        "networks": {"generator": {"factory": factory, "options": options}},
        "z_dim": options["z_dim"],
        "sample_shape": options["sample_shape"],
    }
    save_generator(folder, {"generator": network}, card)
    return network.eval()


USERS_NETS = """
from torch import nn
from layers.scale import SCALE

class Gen(nn.Module):
    def __init__(self, z_dim, sample_shape):
        super().__init__()
        self.shape, self.linear = tuple(sample_shape), nn.Linear(z_dim, 2)

    def forward(self, z):
        return SCALE * self.linear(z).reshape(len(z), *self.shape)
"""

ELSEWHERE = """
import sys
import mlflow, numpy as np, torch
z = np.load(sys.argv[1])
for name in ("digits-generator", "users-generator"):
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    np.save(f"{sys.argv[2]}/{name}.npy", model.predict(z))
    assert model.metadata.signature is not None and model.input_example is not None
loaded = [name for name in sys.modules if name.startswith("saddlepoint")]
rooms = {name.split(".")[1] for name in loaded if "." in name}
assert "networks" in rooms and not rooms & {"training", "tracking", "data", "metrics", "workflows"}, rooms
"""


def test_the_champion_draws_the_same_samples_in_another_process_and_folder(uri, run, tmp_path, monkeypatch):
    ours = package(tmp_path / "ours")
    nets = tmp_path / "home"
    (nets / "layers").mkdir(parents=True)
    (nets / "users_nets.py").write_text(USERS_NETS)
    (nets / "layers" / "scale.py").write_text("SCALE = 3.0\n")
    monkeypatch.chdir(nets)
    monkeypatch.setattr(sys, "path", [str(nets), *sys.path])
    theirs = package(tmp_path / "theirs", "users_nets:Gen", {"z_dim": 6, "sample_shape": [2]})
    for name, folder in [("digits-generator", "ours"), ("users-generator", "theirs")]:
        version = registry.log_generator(uri, run, tmp_path / folder, name=name, tags=TAGS)
        registry.set_alias(uri, name, "champion", version)

    z = np.random.default_rng(1).standard_normal((64, 6), dtype=np.float32)
    away = tmp_path / "away"
    away.mkdir()
    np.save(away / "z.npy", z)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "z.npy", str(away)],
        cwd=away,
        env=environment | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        for name, network, shape in [("digits", ours, (64, 1, 8, 8)), ("users", theirs, (64, 2))]:
            samples = np.load(away / f"{name}-generator.npy")
            assert samples.shape == shape
            assert samples.dtype == np.float32
            np.testing.assert_allclose(samples, network(torch.from_numpy(z)).numpy(), rtol=1e-5, atol=1e-6)


def test_registering_again_finds_the_version_and_other_weights_make_a_new_one(uri, run, tmp_path):
    package(tmp_path / "a")
    package(tmp_path / "b", seed=1)
    first = registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    assert registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS) == first == 1
    assert registry.log_generator(uri, run, tmp_path / "b", name="gen", tags=TAGS) == 2
    other = {**TAGS, "saddle.key": "trial-0009"}
    assert registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=other) == 3
    versions = registry.models(uri)
    assert [(each.name, each.version, each.run_id) for each in versions] == [("gen", n, run) for n in (1, 2, 3)]
    assert TAGS.items() <= versions[0].tags.items()
    logged = MlflowClient(uri).get_run(run).outputs.model_outputs
    assert len(logged) == 2, "the same weights are the same model, however often they are registered"


def test_what_is_said_of_a_version_is_renewed_and_its_files_lie_beside_the_generator(uri, run, tmp_path):
    folder = tmp_path / "a"
    package(folder)
    (folder / "notes.txt").write_text("of the training, and nobody else's")
    for said in ("first", "second"):
        tags = TAGS | {"saddle.promotion": said}
        registry.log_generator(
            uri, run, folder, name="gen", tags=tags, description=f"*{said}*", files={"card.json": said}
        )
    [version] = registry.models(uri, "gen")
    assert (version.description, version.tags["saddle.promotion"]) == ("*second*", "second")
    fetched = registry.fetch(uri, version.uri)
    assert sorted(file.name for file in fetched.iterdir()) == ["card.json", "generator.json", "generator.safetensors"]
    assert (fetched / "card.json").read_text() == "first"  # a model does not change
    assert version.tags["saddle.weights"] == registry.weights_hash(fetched)
    registry.tag_version(uri, "gen", 1, {"saddle.promotion": "third"})
    assert registry.models(uri, "gen")[0].tags["saddle.promotion"] == "third"


def test_a_model_has_tags_of_its_own(uri, run, tmp_path):
    package(tmp_path / "a")
    assert registry.model_tags(uri, "gen") == {}
    registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    registry.tag_model(uri, "gen", {"saddle.alias.champion.0001": "{}"})
    assert registry.model_tags(uri, "gen") == {"saddle.alias.champion.0001": "{}"}
    with pytest.raises(UserError, match="alias of model 'gen': 'champion' is not known"):
        registry.reigning(uri, "gen")
    registry.set_alias(uri, "gen", "champion", 1)
    assert registry.reigning(uri, "gen").version == 1


def test_a_crash_between_logging_and_registering_leaves_no_second_model(uri, run, tmp_path, monkeypatch):
    package(tmp_path / "a")
    for method in ("log_model_artifacts", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, method, lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    assert registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS) == 1
    client = MlflowClient(uri)
    models = client.search_logged_models([client.get_run(run).info.experiment_id])
    assert [str(model.status) for model in models] == ["READY"]


def test_an_alias_moves_and_moves_back(uri, run, tmp_path):
    package(tmp_path / "a")
    package(tmp_path / "b", seed=1)
    old = registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    new = registry.log_generator(uri, run, tmp_path / "b", name="gen", tags=TAGS)
    assert registry.champion(uri, "gen") is None
    for version in (old, new, old):
        registry.set_alias(uri, "gen", "champion", version)
        reigning = registry.champion(uri, "gen")
        assert (reigning.version, reigning.aliases) == (version, ("champion",))
        assert reigning.uri == f"models:/gen/{version}"
        assert [each.aliases for each in registry.models(uri, "gen") if each.version != version] == [()]


def test_a_fetched_package_is_the_package(uri, run, tmp_path):
    package(tmp_path / "a")
    version = registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    registry.set_alias(uri, "gen", "champion", version)
    for model, into in [
        ("models:/gen@champion", None),
        ("models:/gen/1", tmp_path / "fetched"),
        (f"runs:/{run}/generator", tmp_path / "from run"),
    ]:
        folder = registry.fetch(uri, model, into)
        for file in ("generator.json", "generator.safetensors"):
            assert (folder / file).read_bytes() == (tmp_path / "a" / file).read_bytes()
        assert into is None or into in folder.parents


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("models:/gem@champion", "model: 'gem' is not known; did you mean 'gen'?"),
        ("models:/gen@champoin", "alias of model 'gen': 'champoin' is not known; did you mean 'champion'?"),
        ("models:/gen/7", "version of model 'gen': '7' is not known; known: 1"),
        ("models:/gen", "is none of models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/NAME"),
        ("gen", "is none of models:/NAME@ALIAS"),
        ("runs:/0123/generator", "model: there is no run '0123'"),
        ("runs:/RUN/genrator", "'genrator' is not known; did you mean 'generator'?"),
    ],
)
def test_a_model_that_does_not_exist_is_the_users_error_in_one_line(uri, run, tmp_path, model, says):
    package(tmp_path / "a")
    registry.set_alias(uri, "gen", "champion", registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS))
    with pytest.raises(UserError) as caught:
        registry.fetch(uri, model.replace("RUN/", f"{run}/"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_kind_is_the_users_error(uri, run):
    client = MlflowClient(uri)
    client.log_text(run, "flavors: {}", "sklearn/MLmodel")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", client.get_run(run).info.artifact_uri + "/sklearn", run)
    with pytest.raises(UserError, match="'models:/foreign/1' is no generator of saddlepoint"):
        registry.fetch(uri, "models:/foreign/1")


def test_names_that_cannot_be_are_the_users_error(uri, run, tmp_path):
    package(tmp_path / "a")
    with pytest.raises(UserError, match='model: "it\'s" may hold only letters'):
        registry.log_generator(uri, run, tmp_path / "a", name="it's", tags=TAGS)
    registry.log_generator(uri, run, tmp_path / "a", name="gen", tags=TAGS)
    with pytest.raises(UserError, match="alias: 'v2' cannot be used"):
        registry.set_alias(uri, "gen", "v2", 1)
    with pytest.raises(UserError, match="version of model 'gen': '4' is not known; known: 1"):
        registry.set_alias(uri, "gen", "champion", 4)
    with pytest.raises(UserError, match="model: 'other' is not known; known: gen"):
        registry.set_alias(uri, "other", "champion", 1)
