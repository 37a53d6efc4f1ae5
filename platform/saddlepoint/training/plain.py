"""The plain way of running a game: modules and `torch.optim` on one device. The other ways must equal it.

One round is one pass through the order of moves. A move draws a fresh batch and fresh noise, takes the
gradient of each of its players' losses at the same weights, and only then steps them: `("critic",)` is one
player's move, and `("encoder", "discriminator")` moves both at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..games import Batch, Game, Nets, Player
from ..randomness import stream
from .pool import ImagePool
from .speed import PLAIN, Speed, flat, shaped
from .team import ALONE, Team, parts_of


def joined(weights: Sequence[Tensor]) -> nn.Parameter:
    """One tensor whose parts the weights become: a step then takes few operations, however many layers there are.

    Equal bit for bit to a step of each weight by itself, for rules and projections that act elementwise, as
    those of the games do; a weight that a loss does not reach gets a gradient of zeros.
    """
    whole = torch.cat([flat(weight.detach(), weight) for weight in weights])
    for weight, part in zip(weights, torch.split(whole, [weight.numel() for weight in weights]), strict=True):
        weight.data = shaped(part, weight)
    return nn.Parameter(whole)


class Plain:
    """The networks of one game, their optimisers, and the rule by which a round moves them."""

    def __init__(
        self,
        game: Game,
        networks: Mapping[str, nn.Module],
        hyperparameters: Any,
        seed: int = 0,
        team: Team = ALONE,
        speed: Speed = PLAIN,
    ) -> None:
        self.game = game
        self.networks = {name: speed.laid_out(networks[name]) for name in game.networks}
        self._parameters = {name: list(network.parameters()) for name, network in self.networks.items()}
        self.h, self.team, self.speed = hyperparameters, team, speed
        self.nets = Nets({name: speed.called(network) for name, network in self.networks.items()})
        self.weights: dict[str, list[Tensor]] = {
            name: [w for net in player.owns for w in self._parameters[net]] for name, player in game.players.items()
        }
        owned = [net for player in game.players.values() for net in player.owns]
        if len(owned) != len(set(owned)):
            raise UserError(f"game: a network has more than one owner: {', '.join(owned)}")
        self.whole = {name: joined(weights) for name, weights in self.weights.items()}
        self.optimizers = {name: self._optimizer(name, player) for name, player in game.players.items()}
        self.rates = {name: opt.defaults["lr"] for name, opt in self.optimizers.items()}
        self.pools = {
            name: ImagePool(player.pool.size, stream(seed, f"pool of {name}"))
            for name, player in game.players.items()
            if player.pool is not None
        }
        self._moving: frozenset[str] | None = None

    def _optimizer(self, name: str, player: Player) -> torch.optim.Optimizer:
        settings = player.optimizer.read(self.h)
        rule: Callable[..., torch.optim.Optimizer] = player.optimizer.rule
        try:
            return rule([self.whole[name]], **settings)
        except (TypeError, ValueError) as error:
            raise UserError(f"game: the optimiser of the {name} does not take {settings}: {error}") from error

    def round(self, batch: Callable[[], Batch], noise: Callable[[], Any], rate: float = 1.0) -> dict[str, Tensor]:
        """Plays one round; `rate` scales every learning rate (decay). `batch` and `noise` give this member's rows.

        The logs are scalars, still on the device: `loss_<player>` and what the losses log, each from its
        player's last move of the round; in a team, the means over this member's rows.
        """
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * rate
        logs: dict[str, Tensor] = {}
        for move in self.game.order:
            self.speed.begin_move()
            seen, drawn = batch(), noise()
            gradients = {}
            for name in move:
                self._freeze_all_but(self.game.players[name].owns)
                gradients[name], said = self._gradient(name, self._with_past(name, seen, drawn), drawn)
                logs.update(said)
            for name in move:
                self._step(name, gradients[name])
        return logs

    def _gradient(self, name: str, batch: Batch, noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a player's loss on the whole team's batch, as one tensor; and what there is to log."""
        player, parts, n = self.game.players[name], self.speed.accumulate, len(batch.x)
        gradient: Tensor | None = None
        logs: dict[str, Tensor] = {}
        for share, drawn in zip(parts_of(batch, n, parts), parts_of(noise, n, parts), strict=True):
            loss, extra = player.loss(self.nets, share, drawn, self.h)
            found = self._joined(name, torch.autograd.grad(loss, self.weights[name], allow_unused=True))
            gradient = found if gradient is None else gradient.add_(found)
            for key, value in {f"loss_{name}": loss, **extra}.items():
                mean = value.detach() if parts == 1 else value.detach() / parts
                logs[key] = logs[key] + mean if key in logs else mean
        assert gradient is not None
        return self.team.average(gradient if parts == 1 else gradient / parts), logs

    def _joined(self, name: str, gradients: Sequence[Tensor | None]) -> Tensor:
        return torch.cat(
            [
                flat(torch.zeros_like(weight) if gradient is None else gradient, weight)
                for weight, gradient in zip(self.weights[name], gradients, strict=True)
            ]
        )

    def _with_past(self, name: str, batch: Batch, noise: Any) -> Batch:
        """The batch with what the player's pool, if it has one, gives for the fakes of this move."""
        pool = self.game.players[name].pool
        if pool is None:
            return batch
        parts, n = self.speed.accumulate, len(batch.x)
        with torch.no_grad():
            made = [
                pool.fakes(self.nets, *part)
                for part in zip(parts_of(batch, n, parts), parts_of(noise, n, parts), strict=True)
            ]
        # The pool is that of a single process: every member passes the whole batch through it, and takes its rows.
        past = self.pools[name].query(self.team.gather(torch.cat(made)))
        return batch._replace(past=past[self.team.rows(len(past))])

    def _step(self, name: str, gradient: Tensor) -> None:
        whole = self.whole[name]
        whole.grad = gradient
        self.optimizers[name].step()
        project = self.game.players[name].project
        if project is not None:
            with torch.no_grad():
                whole.copy_(project(whole, self.h))

    def _freeze_all_but(self, owned: tuple[str, ...]) -> None:
        """What a player does not own needs no gradient while it moves: no graph is kept for it."""
        moving = frozenset(owned)
        if moving == self._moving:
            return
        for name, parameters in self._parameters.items():  # a network would search for its parameters each time
            for parameter in parameters:
                parameter.requires_grad_(name in moving)
        self._moving = moving

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            for group in optimizer.param_groups:  # of this run, which may go on from another one's weights
                group.update(self.game.players[name].optimizer.read(self.h))
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])
