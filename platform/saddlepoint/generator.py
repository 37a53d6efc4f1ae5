"""A trained generator as a thing of its own: a folder with its weights and what is needed to build it again.

generator.safetensors   the weights
generator.json          the network's factory and whole options, z_dim, sample_shape, game, data, version
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from .. import __version__
from ..errors import UserError
from ..files import write_bytes, write_text
from ..networks import build
from .randomness import stream

WEIGHTS, CARD = "generator.safetensors", "generator.json"


@dataclass(frozen=True)
class Generator:
    network: nn.Module
    card: dict[str, Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.card["sample_shape"])

    def __call__(self, z: Tensor) -> Tensor:
        """z (n, z_dim) -> samples (n, *X), in evaluation mode, without a graph."""
        with torch.no_grad():
            out: Tensor = self.network(z)
        return out

    def sample(self, n: int, seed: int = 0, batch: int = 512) -> Tensor:
        """n samples (n, *X). A seed is a sequence of samples: neither n nor batch changes the first ones."""
        # torch fills a tensor in blocks of 16 numbers, and the rest in another way
        z = torch.randn(-(-n // 16) * 16, self.card["z_dim"], generator=stream(seed, "sample"))[:n]
        device = next(self.network.parameters()).device
        return torch.cat([self(part.to(device)) for part in torch.split(z, batch)])


def describe(network: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"format": 1, "saddlepoint": __version__, "network": network, **facts}


def save_generator(folder: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Each file is whole or absent; the card is written first, so weights never stand without one."""
    write_text(folder / CARD, json.dumps(card, indent=2))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(folder / WEIGHTS, serialised(weights))


def load_generator(folder: Path, device: torch.device | str = "cpu") -> Generator:
    """Raises UserError, naming the file, for a folder that holds no whole generator."""
    try:
        card = json.loads((folder / CARD).read_text())
        weights = load_file(folder / WEIGHTS, device=str(device))
        described = card["network"]
        network = build(described["factory"], described["options"], f"{folder / CARD}: network").to(device)
        network.load_state_dict(weights)
    except FileNotFoundError as error:
        missing = Path(str(error.filename or WEIGHTS)).name
        raise UserError(f"{folder} holds no generator: {missing} is missing") from error
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{folder} holds no whole generator: {reason}") from error
    return Generator(network.eval(), card)
