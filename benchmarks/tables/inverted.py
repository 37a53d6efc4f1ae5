"""Digits to inverted digits and back without a pair: is the inversion found, and what does the cycle loss do?"""

from report import Column, Table, at_most
from trainings import Recipe, Workers

from saddlepoint import data
from saddlepoint.metrics import Offers, scorer
from saddlepoint.metrics.translation import baselines

WAYS = {"x_to_y": "to inverted", "y_to_x": "back"}
COLUMNS = (
    *(Column(f"L1 {way}", f"paired_l1_{key}", ".3f") for key, way in WAYS.items()),
    Column("cycle L1", "cycle_l1", ".3f"),
    *(Column(f"accuracy {way}", f"class_accuracy_{key}", ".3f") for key, way in WAYS.items()),
)
ABOUT = """L1 to true counterparts, held out from every game; pixels lie in [-1, 1]. Accuracy: how often a classifier
that knows neither the pairs nor the game's images finds the digit's class after translation. A cycle closes over a
wrong counterpart as well, so cycle L1 shows nothing alone: the identity has 0. A plain loop: PyTorch only, one seed."""


def table(workers: Workers) -> Table:
    made = Table("CycleGAN on inverted digits", COLUMNS, ABOUT)
    recipes = {
        "CycleGAN": Recipe("digits-cyclegan"),
        "without cycle loss": Recipe("digits-cyclegan", ("game.hyperparameters.cycle=0.0",)),
    }
    measured = workers.train(made.title, recipes)
    dataset = data.load("digits_pairs")
    scores = scorer(dataset, Offers(translate=True))
    names = ("paired_l1", "cycle_l1", "class_accuracy")
    floor = scores.floor(names)
    made.add_scores("true counterparts: the floor", floor)
    for name, rows in measured.items():
        made.add(name, rows)
    for name, subject in baselines(dataset).items():
        made.add_scores(name, scores.score(subject, names))
    made.quote("CycleGAN, plain loop", "0.064", "0.063", "0.053", "0.961", "0.967")
    made.quote("without cycle loss, plain loop", "0.162", "0.162", "0.195", "0.918", "0.913")
    cyclegan = measured["CycleGAN"]
    for key, way in WAYS.items():
        made.checks.append(
            at_most(f"paired L1, {way}, the worst seed", max(cyclegan.values(f"paired_l1_{key}")), 0.1, ".3f")
        )
    for key, way in WAYS.items():
        off = [abs(value - floor[f"class_accuracy_{key}"]) for value in cyclegan.values(f"class_accuracy_{key}")]
        made.checks.append(at_most(f"class accuracy off the floor's, {way}, the worst seed", max(off), 0.02, ".3f"))
    return made
