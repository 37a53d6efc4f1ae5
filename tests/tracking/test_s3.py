"""Artifacts in S3: a generator registered there and drawn from, on a server of moto's on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from saddlepoint.generator import load_generator, save_generator
from saddlepoint.networks import build
from saddlepoint.tracking import registry
from saddlepoint.tracking.tracker import Tracker

OPTIONS = {"z_dim": 6, "sample_shape": [1, 8, 8], "widths": [16]}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="artifacts")
    yield "s3://artifacts/digits"
    server.stop()


def test_a_generator_goes_to_s3_and_comes_back_bit_for_bit(bucket: str, uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri, registry_uri=uri)
    client.create_experiment("digits", artifact_location=bucket)  # as a server does with --default-artifact-root
    torch.manual_seed(0)
    network = build("mlp_generator", OPTIONS)
    card = {
        "game": {"name": "wgan", "structure": {"z_dim": 6, "n_critic": 1}},
        "networks": {"generator": {"factory": "mlp_generator", "options": OPTIONS}},
        "z_dim": 6,
        "sample_shape": [1, 8, 8],
    }
    save_generator(tmp_path / "ours", {"generator": network}, card)
    with Tracker(tmp_path / "sweep", tracking_uri=uri, experiment="digits") as tracker:
        tracker.start_run("trial-0003", name="trial-0003", params={}, tags={})
        tracker.artifact("trial-0003", "pipeline.yaml", "name: digits\n")
        assert tracker.drain(60)
        run_id = tracker.run_id("trial-0003")
    assert run_id is not None
    version = registry.log_generator(uri, run_id, tmp_path / "ours", name="gen", tags={"saddle.key": "trial-0003"})
    registry.set_alias(uri, "gen", "champion", version)

    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="artifacts")["Contents"]]
    assert any(key.endswith("pipeline.yaml") for key in keys)
    assert any(key.endswith(".safetensors") for key in keys)
    assert not list(tmp_path.glob("mlruns/**/*.safetensors"))  # there, and not here

    fetched = registry.fetch(uri, "models:/gen@champion")
    assert registry.weights_hash(fetched) == registry.weights_hash(tmp_path / "ours")
    z = torch.randn(4, 6)
    loaded = load_generator(fetched, torch.device("cpu"))
    torch.testing.assert_close(loaded.networks["generator"](z), network.eval()(z), rtol=0, atol=0)
