"""Which extractor a data set gets, and Inception with planted weights: no download, no unpickling."""

import os
import pickle
import sys
from urllib.error import URLError

import pytest
import torch

from saddlepoint.data import Dataset, load
from saddlepoint.errors import SaddleError, UserError
from saddlepoint.metrics.features import extractor


def unlabelled(channels=3):
    images = torch.rand(6, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Dataset.build("unlabelled", "image", images[:3], images[3:])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A file of Inception weights drawn at random: the format without the download."""
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(library, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = library.FeatureExtractorInceptionV3("inception", ["2048"])
        for layer in network.modules():  # torch's own start would fade to nothing over so many layers
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return network, path


def refusal(*args, error=UserError, **kwargs):
    with pytest.raises(error) as caught:
        extractor(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_auto_takes_what_the_data_allow(digits):
    points = extractor(load("ring", train=20, heldout=20))
    assert (points.name, points.dimension) == ("pixels", 2)
    pixels = extractor(digits, "pixels")
    assert pixels.dimension == 64
    assert torch.equal(pixels(digits.train), digits.train.flatten(1).double())
    assert refusal(unlabelled()).endswith("choose inception or pixels")
    assert refusal(unlabelled(), "classifier").endswith("choose inception or pixels")


def test_names_and_options_that_do_not_fit(digits):
    assert "did you mean 'pixels'?" in refusal(digits, "pixel")
    assert refusal(digits, "pixels", "w.pth").startswith("objective.feature_weights: 'w.pth'")
    assert refusal(unlabelled(2), "inception").endswith("has the shape (2, 16, 16)")
    assert "images of 1 or 3 channels" in refusal(load("ring", train=20, heldout=20), "inception")


@pytest.mark.slow
def test_inception_is_the_library_s_on_pixels_of_0_to_255(planted):
    network, path = planted
    data = unlabelled()
    ours = extractor(data, "inception", path)
    assert (ours.name, ours.dimension, len(ours.hash)) == ("inception", 2048, 64)
    for images in (data.train[:1], data.train[1:2, :1]):  # grey images are repeated into three channels
        levels = ((images + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
        (expected,) = network(levels)
        features = ours(images)
        assert features.dtype == torch.float64
        assert features.std() > 0.1
        torch.testing.assert_close(features, expected.double(), atol=1e-4, rtol=1e-4)


def test_files_that_are_no_weights(planted, tmp_path):
    _, path = planted

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"weights": Trap()}, tmp_path / "trap2.pth")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:1_000_000])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name in ("trap", "trap2", "text", "cut", "list", "other", "nowhere"):
        says = refusal(unlabelled(), "inception", tmp_path / f"{name}.pth")
        assert says.startswith(f"objective.feature_weights: '{tmp_path / name}.pth' ")
    assert not (tmp_path / "sprung").exists()


def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path):
    def unreachable(url, **options):
        assert options["weights_only"]
        assert options["check_hash"]
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    says = refusal(unlabelled(), "inception", error=SaddleError)
    assert "no route" in says
    assert f"put weights-inception-2015-12-05-6726825d.pth into {tmp_path}/hub/checkpoints" in says
    assert "objective.feature_weights" in says


def test_without_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert "pip install 'saddlepoint[inception]'" in refusal(unlabelled(), "inception")
