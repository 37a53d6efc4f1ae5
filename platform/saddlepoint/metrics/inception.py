"""Inception v3 features, as the FID of the literature takes them, through the package torch-fidelity.

They are the 2048 pooled activations of the network of 2015, with images resized as TensorFlow 1 did it.

A thousand images take minutes on a CPU; a GPU is used where there is one.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.metrics.classifier import weights_hash

RECIPE = "inception 1: torch-fidelity 2048, pixels to 0..255"
BATCH = 64


class Inception:
    name = "inception"
    dimension = 2048

    def __init__(self, network: nn.Module) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = network.to(self._device)
        self.hash = weights_hash(RECIPE, network.state_dict())

    def __call__(self, samples: Tensor) -> Tensor:
        """Features (N, 2048) float64 of images (N, 1 or 3, H, W) in [-1, 1]; what lies outside is clamped."""
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.no_grad(), exact:
            batches = [self._batch(images.to(self._device)) for images in torch.split(samples, BATCH)]
        return torch.cat(batches)

    def _batch(self, images: Tensor) -> Tensor:
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        (features,) = self._network(levels.expand(-1, 3, -1, -1))
        return features.double().cpu()  # type: ignore[no-any-return]


def inception(weights: str | Path | None = None) -> Inception:
    """The extractor with the weights of torch-fidelity, downloaded on first use, or from a file of one's own.

    Raises:
        UserError: torch-fidelity is not installed, or `weights` is not a file of Inception weights.
        SaddleError: the download failed.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as library
    except ImportError as error:
        raise UserError(
            "objective.features: 'inception' needs torch-fidelity; pip install 'saddlepoint[inception]'"
        ) from error
    state = _downloaded(library.URL_INCEPTION_V3) if weights is None else _own(Path(weights).expanduser())
    # The library unpickles whatever file it is given. So torch's safe reader has read the file, and the
    # library gets only these tensors, packed anew.
    packed = io.BytesIO()
    torch.save(dict(state), packed)
    packed.seek(0)
    try:
        network = library.FeatureExtractorInceptionV3("inception", ["2048"], packed)
    except RuntimeError as error:
        source = str(weights or library.URL_INCEPTION_V3)
        raise UserError(f"objective.feature_weights: {source!r} does not fit torch-fidelity's Inception v3") from error
    return Inception(network)


def _own(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"objective.feature_weights: {str(path)!r} is not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"objective.feature_weights: {str(path)!r} is not a file of plain torch weights") from error
    if not isinstance(state, Mapping):
        raise UserError(f"objective.feature_weights: {str(path)!r} holds no named weights")
    return state


def _downloaded(url: str) -> Mapping[str, Any]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        file = Path(urlparse(url).path).name
        reason = " ".join(str(error).split())
        raise SaddleError(
            f"the Inception weights could not be downloaded ({reason}); put {file} into {folder}, "
            f"or set objective.feature_weights to its path (from {url})"
        ) from error
