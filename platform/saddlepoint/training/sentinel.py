"""Stops a run that cannot recover, and says why in words. What it finds is never repaired or hidden."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SaddleError

POINT = 1e-3  # samples this much narrower than the data, twice in a row, are one point


class Diverged(SaddleError):
    """The run cannot recover; the message is the reason, for the ledger and the person who reads it."""


class Sentinel:
    """Watches the logs (often, cheaply) and the weights and samples (at every evaluation)."""

    def __init__(self, data: Mapping[str, Tensor]) -> None:
        """data: for each kind of samples those that they should spread like."""
        self.spread = {kind: _spread(samples) for kind, samples in data.items()}
        self.signatures: dict[str, tuple[float, float]] = {}
        self.narrow = dict.fromkeys(data, 0)

    def see_logs(self, round: int, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} by round {round}")

    def see_weights(self, round: int, weights: Mapping[str, list[Tensor]]) -> None:
        """weights: those of each player. One whose weights are the same as at the last call stands still."""
        for player, tensors in weights.items():
            signature = _signature(tensors)
            if not all(map(math.isfinite, signature)):
                raise Diverged(f"a weight of the {player} is not finite at round {round}")
            if self.signatures.get(player) == signature:
                raise Diverged(f"the {player} is frozen: not one weight moved up to round {round}")
            self.signatures[player] = signature

    def see_samples(self, round: int, made: Mapping[str, Tensor]) -> None:
        """made: of each kind samples (n, *X), drawn from independent noise or made from different images."""
        for kind, samples in made.items():
            spread = _spread(samples)
            if not math.isfinite(spread):
                raise Diverged(f"the {kind} are not finite at round {round}")
            self.narrow[kind] = self.narrow[kind] + 1 if spread < POINT * self.spread[kind] else 0
            if self.narrow[kind] == 2:
                share = f"{spread / self.spread[kind]:.1e}"
                raise Diverged(f"the {kind} collapsed to a point at round {round}: {share} of the data's spread")

    def state_dict(self) -> dict[str, Any]:
        return {"signatures": dict(self.signatures), "narrow": dict(self.narrow)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.signatures, self.narrow = dict(state["signatures"]), dict(state["narrow"])


def _spread(samples: Tensor) -> float:
    """The standard deviation over samples, averaged over coordinates."""
    return float(samples.double().flatten(1).std(0, correction=0).mean())


def _signature(tensors: list[Tensor]) -> tuple[float, float]:
    """Two sums that any step changes, and that are not finite as soon as one weight is not."""
    with torch.no_grad():
        first = torch.stack([weight.double().sum() for weight in tensors]).sum()
        second = torch.stack([weight.double().square().sum() for weight in tensors]).sum()
    return float(first), float(second)
