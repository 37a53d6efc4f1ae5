"""What every game keeps to. To add a game, add its line to NETWORKS; it needs no test of its own here."""

import copy
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from saddlepoint import games, networks
from saddlepoint.games import Batch, Game, Nets
from saddlepoint.training.plain import Plain
from saddlepoint.training.sentinel import Diverged, Sentinel

NETWORKS = {
    "gan": {"generator": "mlp_generator", "discriminator": "mlp_critic"},
    "wgan": {"generator": "mlp_generator", "critic": "mlp_critic"},
}
every_game = pytest.mark.parametrize("name", games.GAMES)

B = 32


class Play(NamedTuple):
    """One game, ready: seeded networks on points in the plane."""

    game: Game
    networks: dict[str, nn.Module]
    h: Any
    batch: Batch
    noise: Any

    @property
    def nets(self) -> Nets:
        return Nets(self.networks)


def play(name: str, **changes: float) -> Play:
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    algorithm = games.find(name)
    structure = algorithm.Structure()
    game = algorithm.game(structure)
    facts = {"z_dim": structure.z_dim, "sample_shape": [2], "classes": 4}
    built = {}
    for net in game.networks:
        factory = NETWORKS[name][net]
        arguments = networks.with_facts(factory, {"widths": [16]}, facts)
        built[net] = networks.build(factory, arguments)
    h = algorithm.Hyperparameters()._replace(**changes)
    batch = Batch(3 + torch.randn(B, 2, generator=rng), torch.arange(B) % 4)
    return Play(game, built, h, batch, game.noise(B, rng))


def rounds(at: Play, n: int) -> Plain:
    plain = Plain(at.game, at.networks, at.h)
    rng = torch.Generator().manual_seed(2)
    for _ in range(n):
        x = 3 + torch.randn(B, 2, generator=rng)
        plain.round(lambda x=x: at.batch._replace(x=x), lambda: at.game.noise(B, rng))  # type: ignore[misc]
    return plain


def all_weights(built: dict[str, nn.Module]) -> Tensor:
    return torch.cat([w.detach().flatten() for net in built.values() for w in net.parameters()])


def test_every_game_stands_here() -> None:
    assert set(NETWORKS) == set(games.GAMES)


@every_game
def test_structure_is_hashable_and_apart_from_the_hyperparameters(name: str) -> None:
    algorithm = games.find(name)
    structure = algorithm.Structure()
    assert hash(structure) == hash(algorithm.Structure())
    assert structure == algorithm.Structure()
    first = fields(structure)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(structure, first, 1)
    assert not {field.name for field in fields(structure)} & set(algorithm.Hyperparameters._fields)
    assert all(isinstance(value, float) for value in algorithm.Hyperparameters())


@every_game
def test_every_player_moves_and_its_networks_exist(name: str) -> None:
    game = play(name).game
    assert {player for move in game.order for player in move} == set(game.players)
    assert set(game.networks) == set(NETWORKS[name])
    assert game.generator in game.networks


@every_game
def test_losses_are_pure(name: str) -> None:
    at = play(name)
    weights, x, random = all_weights(at.networks), at.batch.x.clone(), torch.get_rng_state()
    for player in at.game.players.values():
        once, again = (player.loss(at.nets, at.batch, at.noise, at.h) for _ in range(2))
        assert once[0].dim() == 0
        assert torch.equal(once[0], again[0])
        assert once[1].keys() == again[1].keys()
        for key, value in once[1].items():
            assert value.dim() == 0
            assert torch.equal(value, again[1][key])
            assert not key.startswith("loss_")  # these names are the runner's
    assert torch.equal(weights, all_weights(at.networks))
    assert torch.equal(x, at.batch.x)
    assert torch.equal(random, torch.get_rng_state())  # noise is drawn outside
    assert all(w.grad is None for net in at.networks.values() for w in net.parameters())


def frozen_but(at: Play, owned: tuple[str, ...]) -> Iterator[tuple[bool, Tensor]]:
    for name, net in at.networks.items():
        net.requires_grad_(name in owned)
        yield from ((name in owned, weight) for weight in net.parameters())


@every_game
def test_a_loss_moves_what_its_player_owns_and_needs_nothing_else(name: str) -> None:
    at = play(name)
    for player in at.game.players.values():
        marked = list(frozen_but(at, player.owns))
        loss, _ = player.loss(at.nets, at.batch, at.noise, at.h)
        for mine, weight in marked:
            if mine:
                (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
                assert gradient.isfinite().all()
            else:
                with pytest.raises(RuntimeError, match="does not require grad"):
                    torch.autograd.grad(loss, weight, retain_graph=True)
        moved = torch.autograd.grad(loss, [weight for mine, weight in marked if mine])
        assert sum(float(g.abs().sum()) for g in moved) > 0


@every_game
def test_a_small_step_down_the_gradient_lowers_the_players_own_loss(name: str) -> None:
    at = play(name)
    for player in at.game.players.values():
        mine = [weight for own, weight in frozen_but(at, player.owns) if own]
        before, _ = player.loss(at.nets, at.batch, at.noise, at.h)
        gradients = torch.autograd.grad(before, mine)
        fall = 1e-3 * sum(float(g.square().sum()) for g in gradients)
        with torch.no_grad():
            for weight, gradient in zip(mine, gradients, strict=True):
                weight -= 1e-3 * gradient
            after, _ = player.loss(at.nets, at.batch, at.noise, at.h)
        assert float(before.detach() - after) == pytest.approx(fall, rel=0.1)


@every_game
def test_every_hyperparameter_changes_the_weights_within_two_rounds(name: str) -> None:
    """A searched value that changes nothing is a failure of the search, not a detail."""
    at = play(name)
    ordinary = all_weights(rounds(at, 2).networks)
    assert torch.equal(ordinary, all_weights(rounds(play(name), 2).networks))
    for hyperparameter in at.h._fields:
        other = play(name, **{hyperparameter: 0.9 * getattr(at.h, hyperparameter)})
        assert not torch.equal(ordinary, all_weights(rounds(other, 2).networks)), hyperparameter


@every_game
def test_all_networks_move_in_one_round(name: str) -> None:
    at = play(name)
    before = copy.deepcopy(at.networks)
    after = rounds(at, 1).networks
    for net, network in after.items():
        assert not torch.equal(all_weights({net: before[net]}), all_weights({net: network})), net


@every_game
def test_projections_are_pure_and_projecting_twice_is_projecting_once(name: str) -> None:
    at = play(name)
    for player in at.game.players.values():
        if player.project is None:
            continue
        weight = torch.linspace(-3, 3, 50)
        projected = player.project(weight, at.h)
        assert torch.equal(weight, torch.linspace(-3, 3, 50))
        assert torch.equal(projected, player.project(projected, at.h))
        alone = torch.stack([player.project(w, at.h) for w in weight])
        assert torch.equal(projected, alone)  # elementwise


@every_game
def test_noise_is_the_generators_and_samples_have_the_datas_shape(name: str) -> None:
    at = play(name)
    rng, same = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    first, again, second = at.game.noise(B, rng), at.game.noise(B, same), at.game.noise(B, rng)
    with torch.no_grad():
        samples = [at.game.sample(at.nets, noise) for noise in (first, again, second)]
    assert all(sample.shape == (B, 2) for sample in samples)
    assert torch.equal(samples[0], samples[1])
    assert not torch.isclose(samples[0], samples[2]).any()


@every_game
def test_a_broken_network_is_seen_by_the_sentinel(name: str) -> None:
    for net in NETWORKS[name]:
        at = play(name)
        with torch.no_grad():
            next(at.networks[net].parameters()).fill_(torch.nan)
        plain = Plain(at.game, at.networks, at.h)
        logs = plain.round(lambda at=at: at.batch, lambda at=at: at.noise)  # type: ignore[misc]
        sentinel = Sentinel(at.batch.x)
        with pytest.raises(Diverged, match=r"is nan by round 1$"):
            sentinel.see_logs(1, {key: float(value) for key, value in logs.items()})
        with pytest.raises(Diverged, match="is not finite at round 1"):
            sentinel.see_weights(1, plain.weights)


@every_game
def test_lanes_of_weights_and_hyperparameters_in_one_program_equal_each_alone(name: str) -> None:
    """What fusing needs: no control flow on values, and hyperparameters that may be tensors."""
    lanes = [play(name), play(name)]
    with torch.no_grad():
        for weight in lanes[1].networks[lanes[1].game.generator].parameters():
            weight += 0.1
    stacked = {
        net: {
            key: torch.stack([dict(at.networks[net].named_parameters())[key].detach() for at in lanes])
            for key, _ in lanes[0].networks[net].named_parameters()
        }
        for net in lanes[0].networks
    }
    h = type(lanes[0].h)(*(torch.tensor([value, 2 * value]) for value in lanes[0].h))
    for player in lanes[0].game.players.values():

        def loss(weights: dict[str, Any], h: Any, player: Any = player) -> Tensor:
            def net(name: str) -> Any:
                return lambda x: functional_call(lanes[0].networks[name], weights[name], (x,))

            value: Tensor
            value, _ = player.loss(Nets({n: net(n) for n in weights}), lanes[0].batch, lanes[0].noise, h)
            return value

        together = vmap(loss)(stacked, h)
        for lane, at in enumerate(lanes):
            alone, _ = player.loss(at.nets, lanes[0].batch, lanes[0].noise, at.h)
            torch.testing.assert_close(together[lane], alone.detach(), rtol=1e-5, atol=1e-6)
