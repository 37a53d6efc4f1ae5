"""What every game keeps to, the user's game of docs/own_game.md included.

To add a game, give it its small pipeline in tests/conftest.py; it needs no test of its own here. What trainings,
pictures and the registry do with every game stands in tests/workflows/test_every_game.py.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from saddlepoint import games
from saddlepoint.games import Batch, Game, Nets
from saddlepoint.spec import Pipeline
from saddlepoint.training.batches import batches
from saddlepoint.training.plain import Plain
from saddlepoint.training.sentinel import Diverged, Sentinel
from saddlepoint.training.setup import build_game, build_networks, setup

every_game = pytest.mark.parametrize("name", [*games.GAMES, "lsgan:game"])

B = 32


class Play(NamedTuple):
    """One game, ready: seeded networks, a batch of its data, noise, and fakes for the players that have a pool."""

    game: Game
    networks: dict[str, nn.Module]
    h: Any
    batches: Callable[[], Batch]
    batch: Batch
    noise: Any

    @property
    def nets(self) -> Nets:
        return Nets(self.networks)

    def seen(self, player: str) -> Batch:
        pool = self.game.players[player].pool
        with torch.no_grad():
            return self.batch._replace(past=pool.fakes(self.nets, self.batch, self.noise) if pool else None)

    def loss(self, player: str, h: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.game.players[player].loss(self.nets, self.seen(player), self.noise, h or self.h)


Small = Callable[..., Pipeline]
Ready = Callable[..., Play]


@pytest.fixture
def play(game_in_small: Small) -> Ready:
    def build(name: str, **changes: float) -> Play:
        torch.manual_seed(0)
        pipeline = game_in_small(name)
        shared = setup(pipeline)
        game = build_game(pipeline)
        built = build_networks(pipeline, game, shared)
        h = pipeline.hyperparameters()._replace(**changes)
        source = batches(shared.dataset, B, 1, shared.device)
        return Play(game, built, h, source, source(), game.noise(B, torch.Generator().manual_seed(1)))

    return build


def rounds(at: Play, n: int) -> Plain:
    plain = Plain(at.game, at.networks, at.h)
    rng = torch.Generator().manual_seed(2)
    for _ in range(n):
        plain.round(at.batches, lambda: at.game.noise(B, rng))
    return plain


def all_weights(built: dict[str, nn.Module]) -> Tensor:
    return torch.cat([w.detach().flatten() for net in built.values() for w in net.parameters()])


@every_game
def test_structure_is_hashable_and_apart_from_the_hyperparameters(name: str, game_in_small: Small) -> None:
    game_in_small(name)  # one's own module can be imported from here on
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
def test_every_player_moves_and_what_ships_can_be_used(name: str, play: Ready) -> None:
    game = play(name).game
    assert {player for move in game.order for player in move} == set(game.players)
    assert set(game.ships) <= set(game.networks)
    assert game.sample or game.translate
    assert (game.needs == "domains") == bool(game.translate)


@every_game
def test_losses_are_pure(name: str, play: Ready) -> None:
    at = play(name)
    weights, x, random = all_weights(at.networks), at.batch.x.clone(), torch.get_rng_state()
    for player in at.game.players:
        once, again = (at.loss(player) for _ in range(2))
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
def test_a_loss_moves_what_its_player_owns_and_needs_nothing_else(name: str, play: Ready) -> None:
    at = play(name)
    for name_of, player in at.game.players.items():
        marked = list(frozen_but(at, player.owns))
        loss, _ = at.loss(name_of)
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
def test_a_small_step_down_the_gradient_lowers_the_players_own_loss(name: str, play: Ready) -> None:
    """By as much as the gradient says: |step| * |gradient|, to 10 % or within the noise of 32 bits."""
    at = play(name)
    for name_of, player in at.game.players.items():
        mine = [weight for own, weight in frozen_but(at, player.owns) if own]
        before, _ = at.loss(name_of)
        gradients = torch.autograd.grad(before, mine)
        slope = sum(float(g.square().sum()) for g in gradients)
        step = min(1e-3, 1e-3 * float(before.detach().abs()) / slope)
        with torch.no_grad():
            for weight, gradient in zip(mine, gradients, strict=True):
                weight -= step * gradient
            after, _ = at.loss(name_of)
        assert float(before.detach() - after) == pytest.approx(step * slope, rel=0.1)


@every_game
def test_every_hyperparameter_changes_the_weights_within_two_rounds(name: str, play: Ready) -> None:
    """A searched value that changes nothing is a failure of the search, not a detail."""
    at = play(name)
    ordinary = all_weights(rounds(at, 2).networks)
    assert torch.equal(ordinary, all_weights(rounds(play(name), 2).networks))
    for hyperparameter in at.h._fields:
        other = play(name, **{hyperparameter: 0.9 * getattr(at.h, hyperparameter)})
        assert not torch.equal(ordinary, all_weights(rounds(other, 2).networks)), hyperparameter


@every_game
def test_all_networks_move_in_one_round(name: str, play: Ready) -> None:
    at = play(name)
    before = copy.deepcopy(at.networks)
    after = rounds(at, 1).networks
    for net, network in after.items():
        assert not torch.equal(all_weights({net: before[net]}), all_weights({net: network})), net


@every_game
def test_projections_are_pure_and_projecting_twice_is_projecting_once(name: str, play: Ready) -> None:
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
def test_what_is_made_is_the_noises_or_the_sources_and_has_the_datas_shape(name: str, play: Ready) -> None:
    at = play(name)
    shape = at.batch.x.shape
    with torch.no_grad():
        for translate, source in zip(at.game.translate.values(), at.batch, strict=False):
            once, again = translate(at.nets, source), translate(at.nets, source)
            assert once.shape == shape
            assert torch.equal(once, again)
            assert not torch.isclose(once, translate(at.nets, source.flip(0))).all()
        if at.game.sample is None:
            return
        draw, labels = at.game.latent or at.game.noise, at.batch.y if at.game.needs == "labels" else None
        rng, same = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
        latents = draw(B, rng), draw(B, same), draw(B, rng)
        first, again, second = (at.game.sample(at.nets, latent, labels) for latent in latents)
    assert first.shape == shape
    assert torch.equal(first, again)
    assert not torch.isclose(first, second).all(dim=0).any()


@every_game
def test_a_broken_network_is_seen_by_the_sentinel(name: str, play: Ready) -> None:
    for net in play(name).networks:
        at = play(name)
        with torch.no_grad():
            next(at.networks[net].parameters()).fill_(torch.nan)
        plain = Plain(at.game, at.networks, at.h)
        logs = plain.round(lambda at=at: at.batch, lambda at=at: at.noise)  # type: ignore[misc]
        sentinel = Sentinel({"samples": at.batch.x})
        with pytest.raises(Diverged, match=r"is nan by round 1$"):
            sentinel.see_logs(1, {key: float(value) for key, value in logs.items()})
        with pytest.raises(Diverged, match="is not finite at round 1"):
            sentinel.see_weights(1, plain.weights)


@every_game
def test_lanes_of_weights_and_hyperparameters_in_one_program_equal_each_alone(name: str, play: Ready) -> None:
    """What fusing needs: no control flow on values, and hyperparameters that may be tensors."""
    lanes = [play(name), play(name)]
    with torch.no_grad():
        for net in lanes[1].game.ships:
            for weight in lanes[1].networks[net].parameters():
                weight += 0.1
    stacked = {
        net: {
            key: torch.stack([dict(at.networks[net].named_parameters())[key].detach() for at in lanes])
            for key, _ in lanes[0].networks[net].named_parameters()
        }
        for net in lanes[0].networks
    }
    h = type(lanes[0].h)(*(torch.tensor([value, 2 * value]) for value in lanes[0].h))
    for name_of, player in lanes[0].game.players.items():
        seen = lanes[0].seen(name_of)

        def loss(weights: dict[str, Any], h: Any, player: Any = player, seen: Batch = seen) -> Tensor:
            def net(name: str) -> Any:
                return lambda *inputs: functional_call(lanes[0].networks[name], weights[name], inputs)

            value: Tensor
            value, _ = player.loss(Nets({n: net(n) for n in weights}), seen, lanes[0].noise, h)
            return value

        together = vmap(loss)(stacked, h)
        for lane, at in enumerate(lanes):
            doubled = type(at.h)(*((1 + lane) * value for value in at.h))
            alone, _ = player.loss(at.nets, seen, lanes[0].noise, doubled)
            torch.testing.assert_close(together[lane], alone.detach(), rtol=1e-5, atol=1e-6)
