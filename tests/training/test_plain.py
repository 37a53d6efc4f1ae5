"""The plain way of running a game: the order of moves, what each sees, and that it is the textbook's loop."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from saddlepoint.errors import UserError
from saddlepoint.games import Batch, Game, Nets, Optimizer, Player, normal, wgan
from saddlepoint.networks.mlp import Critic, Generator
from saddlepoint.training.plain import Plain

RATE = 0.25


class H(NamedTuple):
    lr: float = RATE
    bound: float = 0.125


class Seen(NamedTuple):
    """What a loss saw when it was called."""

    player: str
    x: Tensor
    z: Tensor
    weights: dict[str, float]
    moving: dict[str, bool]


class Scalar(nn.Module):
    """x -> w x, with one weight, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


class Recorder:
    """A game of D (owns d) and G (owns g) that keeps what its losses saw. Gradients of w: mean x, mean z."""

    def __init__(self, *order: tuple[str, ...], project: Any = None) -> None:
        self.seen: list[Seen] = []
        self.game = Game(
            players={
                "D": Player(("d",), self._loss("D"), Optimizer(SGD, lr="lr"), project),
                "G": Player(("g",), self._loss("G"), Optimizer(SGD, lr="lr")),
            },
            order=order,
            noise=normal(1),
            sample=lambda nets, z, y: nets.g(z),
            ships=("g",),
        )
        self.networks: dict[str, nn.Module] = {"d": Scalar(), "g": Scalar()}
        self.drawn = 0

    def _loss(self, name: str) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        def loss(nets: Nets, batch: Batch, z: Tensor, h: H) -> tuple[Tensor, dict[str, Tensor]]:
            ws = {net: module.w for net, module in self.networks.items()}
            values = {net: float(w.detach()) for net, w in ws.items()}
            moving = {net: w.requires_grad for net, w in ws.items()}
            self.seen.append(Seen(name, batch.x, z, values, moving))
            value = nets.d(batch.x).mean() if name == "D" else nets.g(z).mean()
            return value, {f"seen_by_{name}": value}

        return loss

    def count(self) -> Tensor:
        """1, 2, 3 ... so that every draw can be told from every other."""
        self.drawn += 1
        return torch.full((2, 1), float(self.drawn))

    def round(self, rate: float = 1.0, **options: Any) -> dict[str, Tensor]:
        plain = Plain(self.game, self.networks, H(), **options)
        return plain.round(lambda: Batch(self.count()), self.count, rate)

    @property
    def weights(self) -> dict[str, float]:
        return {net: float(module.w.detach()) for net, module in self.networks.items()}


FIVE_TO_ONE = (("D",),) * 5 + (("G",),)


def test_the_order_of_moves_is_the_games() -> None:
    recorder = Recorder(*FIVE_TO_ONE)
    recorder.round()
    assert [seen.player for seen in recorder.seen] == ["D", "D", "D", "D", "D", "G"]


def test_every_move_draws_a_fresh_batch_and_fresh_noise() -> None:
    recorder = Recorder(*FIVE_TO_ONE)
    recorder.round()
    assert [float(seen.x[0]) for seen in recorder.seen] == [1, 3, 5, 7, 9, 11]
    assert [float(seen.z[0]) for seen in recorder.seen] == [2, 4, 6, 8, 10, 12]


def test_moves_in_turn_see_what_the_last_one_left() -> None:
    recorder = Recorder(("D",), ("G",))
    recorder.round()
    assert recorder.seen[0].weights == {"d": 1.0, "g": 1.0}
    assert recorder.seen[1].weights == {"d": 1 - RATE * 1, "g": 1.0}  # D's first x is 1


def test_simultaneous_moves_see_one_batch_one_noise_and_the_weights_before_either() -> None:
    recorder = Recorder(("D", "G"))
    recorder.round()
    first, second = recorder.seen
    assert [first.player, second.player] == ["D", "G"]
    assert first.x is second.x
    assert first.z is second.z
    assert first.weights == second.weights == {"d": 1.0, "g": 1.0}
    assert recorder.weights == {"d": 1 - RATE * 1, "g": 1 - RATE * 2}  # x = 1, z = 2


def test_who_does_not_move_is_frozen_and_gets_no_gradient() -> None:
    recorder = Recorder(("D",))
    recorder.round()
    assert recorder.seen[0].moving == {"d": True, "g": False}
    assert recorder.weights["g"] == 1.0
    assert recorder.networks["g"].w.grad is None
    turns = Recorder(("D",), ("G",), ("D",))
    turns.round()
    assert [seen.moving["d"] for seen in turns.seen] == [True, False, True]
    assert [seen.moving["g"] for seen in turns.seen] == [False, True, False]


def test_the_projection_follows_every_step_of_its_player_only() -> None:
    recorder = Recorder(("D",), ("D",), ("G",), project=lambda w, h: w.clamp(-h.bound, h.bound))
    recorder.round()
    assert [seen.weights["d"] for seen in recorder.seen] == [1.0, 0.125, -0.125]
    assert recorder.weights["g"] == 1 - RATE * 6


def test_the_rate_scales_the_learning_rate_of_that_round_alone() -> None:
    recorder = Recorder(("D",), ("G",))
    plain = Plain(recorder.game, recorder.networks, H())
    for rate, expected in ((0.5, 1 - 0.5 * RATE), (0.0, 1 - 0.5 * RATE), (1.0, 1 - 1.5 * RATE)):
        plain.round(lambda: Batch(torch.ones(2, 1)), lambda: torch.zeros(2, 1), rate)
        assert recorder.weights["d"] == expected


def test_the_logs_are_of_the_last_move_and_keep_no_graph() -> None:
    logs = Recorder(("D",), ("D",), ("G",)).round()
    assert set(logs) == {"loss_D", "loss_G", "seen_by_D", "seen_by_G"}
    assert not any(value.requires_grad for value in logs.values())
    assert float(logs["loss_D"]) == (1 - RATE * 1) * 3  # the second D move: x = 3, after the first step
    assert torch.equal(logs["loss_D"], logs["seen_by_D"])


def test_a_weight_that_the_loss_does_not_use_stays() -> None:
    recorder = Recorder(("D",), ("G",))
    recorder.networks["d"].register_parameter("idle", nn.Parameter(torch.tensor(5.0)))
    recorder.round()
    assert float(recorder.networks["d"].idle.detach()) == 5.0
    assert recorder.weights["d"] == 1 - RATE


def test_a_network_has_one_owner() -> None:
    recorder = Recorder(("D",))
    greedy = replace(recorder.game.players["G"], owns=("g", "d"))
    game = replace(recorder.game, players={**recorder.game.players, "G": greedy})
    with pytest.raises(UserError, match="a network has more than one owner"):
        Plain(game, recorder.networks, H())


def test_a_network_that_the_game_lacks_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no network 'citric'; its networks are \['critic'\]"):
        Nets({"critic": nn.Identity()}).citric(torch.zeros(1))


def pair() -> dict[str, nn.Module]:
    torch.manual_seed(5)
    return {"generator": Generator(4, (2,), (32, 32)), "critic": Critic((2,), (32, 32))}


def stream(seed: int, *shape: int) -> Callable[[], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=rng)


def test_the_plain_way_equals_a_wgan_written_by_hand() -> None:
    """Algorithm 1 with modules, `backward` and torch.optim, as in anyone's script."""
    h = wgan.Hyperparameters(lr_critic=1e-3, lr_generator=2e-3, clip=0.05)
    ours = Plain(wgan.game(wgan.Structure(z_dim=4, n_critic=3)), pair(), h)
    data, noise = stream(1, 64, 2), stream(2, 64, 4)
    for _ in range(3):
        ours.round(lambda: Batch(data()), noise)

    nets = pair()
    generator, critic = nets["generator"], nets["critic"]
    by_hand_critic = torch.optim.RMSprop(critic.parameters(), lr=1e-3, foreach=False)
    by_hand_generator = torch.optim.RMSprop(generator.parameters(), lr=2e-3, foreach=False)
    data, noise = stream(1, 64, 2), stream(2, 64, 4)
    for _ in range(3):
        for _ in range(3):
            x, z = data(), noise()
            by_hand_critic.zero_grad()
            (critic(generator(z).detach()).mean() - critic(x).mean()).backward()
            by_hand_critic.step()
            with torch.no_grad():
                for weight in critic.parameters():
                    weight.clamp_(-0.05, 0.05)
        data()  # a move draws a batch whether its loss looks at it or not
        by_hand_generator.zero_grad()
        (-critic(generator(noise())).mean()).backward()
        by_hand_generator.step()

    for name, net in nets.items():
        theirs = net.state_dict()
        for key, value in ours.networks[name].state_dict().items():
            assert torch.equal(value, theirs[key]), f"{name}.{key}"


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    game, h = wgan.game(wgan.Structure(z_dim=4, n_critic=2)), wgan.Hyperparameters(lr_critic=1e-3)
    data, noise = stream(1, 64, 2), stream(2, 64, 4)
    first = Plain(game, pair(), h)
    first.round(lambda: Batch(data()), noise)
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    second = Plain(game, {"generator": Generator(4, (2,), (32, 32)), "critic": Critic((2,), (32, 32))}, h)
    second.load_state_dict(state)
    for plain in (first, second):
        data, noise = stream(3, 64, 2), stream(4, 64, 4)
        plain.round(lambda data=data: Batch(data()), noise)  # type: ignore[misc]
    for name, net in first.networks.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, second.networks[name].state_dict()[key])
