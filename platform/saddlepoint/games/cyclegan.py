"""CycleGAN: Zhu, Park, Isola & Efros (2017), arXiv:1703.10593, equations 1 to 3, with the settings of their code.

Shapes   B batch; x (B, *X) and y (B, *Y) are batches of the two domains, not paired.
         G: X -> Y   F: Y -> X   D_X, D_Y: an image -> any shape of numbers, one a patch; losses take their mean.
Signs    least squares (section 4): D aims at 1 for real images and at 0 for fakes, G and F at 1 for theirs.
Logged   cycle_x, cycle_y: mean |F(G(x)) - x| and |G(F(y)) - y|; identity: mean |G(y) - y| + mean |F(x) - x|. A cycle
         closes over a wrong counterpart too, so none of these is an objective.

Order: the authors' code computes the fakes, steps G and F against the discriminators as they are, then steps both
discriminators on the fakes from before that step. This is one simultaneous move of all players from the same weights;
that one Adam there holds both discriminators changes nothing, for Adam acts elementwise.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.optim import Adam

from .game import Batch, Count, Fraction, Game, Logs, Nets, Optimizer, Player, Pool, Positive, silent

Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Structure:
    pool: Count = 50  # fakes that each discriminator's pool holds


class Hyperparameters(NamedTuple):
    lr_generator: Positive = 2e-4
    lr_discriminator: Positive = 2e-4
    beta1: Fraction = 0.5
    cycle: Weight = 10.0  # lambda
    identity: Weight = 0.5  # in units of lambda, as in section 5.2 and in the code


def generators_loss(nets: Nets, batch: Batch, noise: None, h: Hyperparameters) -> tuple[Tensor, Logs]:
    assert batch.y is not None  # Game.needs
    x, y = batch.x, batch.y
    fake_y, fake_x = nets.G(x), nets.F(y)
    gan = (nets.D_Y(fake_y) - 1).square().mean() + (nets.D_X(fake_x) - 1).square().mean()
    cycle_x, cycle_y = l1_loss(nets.F(fake_y), x), l1_loss(nets.G(fake_x), y)  # equation 2
    identity = l1_loss(nets.G(y), y) + l1_loss(nets.F(x), x)  # section 5.2: an image of the target stays as it is
    loss = gan + h.cycle * (cycle_x + cycle_y + h.identity * identity)  # equation 3
    return loss, {"cycle_x": cycle_x, "cycle_y": cycle_y, "identity": identity}


def d_x_loss(nets: Nets, batch: Batch, noise: None, h: Hyperparameters) -> tuple[Tensor, Logs]:
    return least_squares(nets.D_X(batch.x), nets.D_X(batch.past)), {}


def d_y_loss(nets: Nets, batch: Batch, noise: None, h: Hyperparameters) -> tuple[Tensor, Logs]:
    return least_squares(nets.D_Y(batch.y), nets.D_Y(batch.past)), {}


def least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """Halved, which slows the discriminators down relative to the generators (appendix 7.1)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def game(s: Structure) -> Game:
    def adam(rate: str) -> Optimizer:
        return Optimizer(Adam, lr=rate, betas=("beta1", 0.999))

    generators = Player(owns=("G", "F"), loss=generators_loss, optimizer=adam("lr_generator"))
    d_x = Player(
        owns=("D_X",),
        loss=d_x_loss,
        optimizer=adam("lr_discriminator"),
        pool=Pool(lambda nets, batch, noise: nets.F(batch.y), s.pool),
    )
    d_y = Player(
        owns=("D_Y",),
        loss=d_y_loss,
        optimizer=adam("lr_discriminator"),
        pool=Pool(lambda nets, batch, noise: nets.G(batch.x), s.pool),
    )
    return Game(
        players={"generators": generators, "D_X": d_x, "D_Y": d_y},
        order=(("generators", "D_X", "D_Y"),),
        noise=silent,
        translate={"x_to_y": lambda nets, x: nets.G(x), "y_to_x": lambda nets, y: nets.F(y)},
        ships=("G", "F"),
        needs="domains",
    )
