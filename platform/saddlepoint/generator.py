"""What a training leaves: the networks that a game ships, and what they are for: samples, translations, latents.

generator.safetensors   the weights
generator.json          the card: the game and its structure, each network's factory and whole options, the shapes,
                        the data; what builds the networks again, here or wherever the folder goes
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parsed
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from . import __version__
from .errors import UserError, unknown
from .files import write_bytes, write_text
from .games import Game, Inference, Nets, find
from .games import build as build_game
from .networks import build
from .randomness import stream
from .remote import Place, Remote

WEIGHTS, CARD = "generator.safetensors", "generator.json"
FORMAT = 2
BLOCK = 512  # latents are drawn in blocks of one size, so that n does not change the first samples
TRANSLATED = 1 << 20  # numbers of one batch that is translated: 16 images of 256x256, 512 small ones


@dataclass(frozen=True, eq=False)
class Generator:
    game: Game
    networks: Mapping[str, nn.Module]  # those that the game ships
    card: Mapping[str, Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.card["sample_shape"])

    @property
    def classes(self) -> int | None:
        """How many classes one may ask for; None if the game is not conditional."""
        return len(self.card["label_shares"]) if self.game.needs == "labels" else None

    @property
    def device(self) -> torch.device:
        return next(w for network in self.networks.values() for w in network.parameters()).device

    @contextmanager
    def _used(self) -> Iterator[Nets]:
        """The networks in evaluation mode, without a graph; a training's own are as before afterwards."""
        modes = {name: network.training for name, network in self.networks.items()}
        for network in self.networks.values():
            network.eval()
        with torch.no_grad():
            yield Nets(self.networks)
        for name, network in self.networks.items():
            network.train(modes[name])

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z (n, z_dim), and for a conditional game labels (n,) -> samples (n, *X)."""
        if self.game.sample is None:
            raise UserError(f"model: a {self.card['game']['name']} translates images; it draws none from noise")
        with self._used() as nets:
            return self.game.sample(nets, z.to(self.device), None if labels is None else labels.to(self.device))

    def sample(self, n: int, seed: int = 0, label: int | None = None) -> Tensor:
        """n samples (n, *X), all of one class if asked. A seed is a sequence of samples: n changes none of the first.

        Raises:
            UserError: a class that there is not, or any for a game that knows none.
        """
        return self.draw(n, stream(seed, "sample"), label)[0]

    def draw(self, n: int, rng: torch.Generator, label: int | None = None) -> tuple[Tensor, Tensor | None]:
        """n samples and the labels asked for: of one class, or with the classes' shares of the training data."""
        if label is not None and not 0 <= label < (self.classes or 0):
            right = f"it must be 0 to {self.classes - 1}" if self.classes else "the model knows no classes"
            raise UserError(f"class: {label!r} cannot be; {right}")
        samples, labels = [], []
        for at in range(0, n, BLOCK):
            size = min(BLOCK, n - at)
            z, y = self.latents(BLOCK, rng)[:size], self._labels(BLOCK, rng)
            if y is not None:
                y = y[:size] if label is None else torch.full_like(y[:size], label)
                labels.append(y)
            samples.append(self(z, y))
        return torch.cat(samples), torch.cat(labels) if labels else None

    def latents(self, n: int, rng: torch.Generator) -> Tensor:
        z: Tensor = (self.game.latent or self.game.noise)(n, rng)
        return z

    def _labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        if self.classes is None:
            return None
        shares = torch.tensor(self.card["label_shares"], device=rng.device)
        return torch.multinomial(shares, n, replacement=True, generator=rng)

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Images (n, *X) of one domain -> their counterparts (n, *Y) in the other. Raises UserError: no such way."""
        if not self.game.translate:
            raise UserError(f"model: a {self.card['game']['name']} draws samples, and translates nothing")
        if direction not in self.game.translate:
            raise unknown("direction", direction, self.game.translate)
        function = self.game.translate[direction]
        size = max(1, TRANSLATED * 3 // max(1, images[0].numel()))
        with self._used() as nets:
            return torch.cat([function(nets, part.to(self.device)) for part in torch.split(images, size)])

    def posterior(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Latents z (B, Z), one drawn from q(z|x) for each of x (B, *X), by a game that has an encoder."""
        if rng.device != self.device:  # drawn where the networks are, fixed by the same seed
            seed = int(torch.randint(2**62, (), generator=rng))
            rng = torch.Generator(self.device).manual_seed(seed)
        inference = self._inference()
        with self._used() as nets:
            return inference.posterior(nets, x.to(self.device), self.game.noise(len(x), rng))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats (B,) of x (B, *X) under latents z (B, Z)."""
        inference = self._inference()
        with self._used() as nets:
            return inference.log_likelihood(nets, x.to(self.device), z.to(self.device))

    def _inference(self) -> Inference:
        if self.game.inference is None:
            raise UserError(f"model: a {self.card['game']['name']} has no encoder, and infers no latents")
        return self.game.inference


def save_generator(folder: Place, networks: Mapping[str, nn.Module], card: Mapping[str, Any]) -> None:
    """Each file is whole or absent; the card is written first, so weights never stand without one."""
    write_text(folder / CARD, json.dumps({"format": FORMAT, "saddlepoint": __version__, **card}, indent=2))
    weights = {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }
    write_bytes(folder / WEIGHTS, serialised(weights))


def load_generator(folder: Place, device: torch.device | str = "cpu") -> Generator:
    """Raises UserError, naming the file, for a folder that holds no whole generator."""
    try:
        card = json.loads((folder / CARD).read_text())
        if card["format"] != FORMAT:
            raise UserError(f"is of format {card['format']}; this version reads format {FORMAT}")
        weights = _weights(folder / WEIGHTS, device)
        algorithm = find(card["game"]["name"])
        game = build_game(card["game"]["name"], algorithm.Structure(**card["game"]["structure"]))
        networks = {}
        for name, described in card["networks"].items():
            network = build(described["factory"], described["options"], f"networks.{name}").to(device)
            own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
            network.load_state_dict(own)
            networks[name] = network.eval()
    except UserError as error:
        raise UserError(f"{folder / CARD}: {error}") from error
    except FileNotFoundError as error:
        missing = CARD if CARD in str(error.filename) else WEIGHTS
        raise UserError(f"{folder} holds no generator: {missing} is missing") from error
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{folder} holds no whole generator: {reason}") from error
    return Generator(game, networks, card)


def _weights(path: Place, device: torch.device | str) -> dict[str, Tensor]:
    if isinstance(path, Remote):
        return {name: weight.to(device) for name, weight in parsed(path.read_bytes()).items()}
    return load_file(path, device=str(device))
