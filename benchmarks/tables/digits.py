"""Handwritten digits: GAN, WGAN and CGAN beside what real data scores, and beside what needs no training."""

import torch
from report import Column, Table, at_least, at_most
from torch import Tensor
from trainings import Recipe, Workers

from saddlepoint import data
from saddlepoint.data import Dataset
from saddlepoint.metrics import Offers, Subject, scorer

COLUMNS = (
    Column("FID", "fid", ".1f"),
    Column("recall", "recall"),
    Column("coverage", "coverage"),
    Column("1-NN", "one_nn"),
    Column("class accuracy", "class_accuracy", ".3f"),
)
ABOUT = """898 samples against the 899 digits that no game has seen, on the features of a small classifier: values
compare only within this table. 1-NN accuracy is ideal at 0.5. Class accuracy: how often a classifier that
was trained on the held-out digits alone finds the class that was asked for; above the floor means samples
easier than real ones, so read it beside recall. Defaults: those published, DCGAN's and WGAN's, for as
many rounds as the swept values: those in the pipeline's file, which its sweep found. A
plain loop: PyTorch only, one to three seeds, a classifier of the same recipe."""


def table(workers: Workers) -> Table:
    made = Table("GAN, WGAN and CGAN on digits", COLUMNS, ABOUT)
    recipes = {
        f"{name}, {kind}": Recipe(pipeline, defaults=kind == "defaults")
        for name, pipeline in (("WGAN", "digits-wgan"), ("GAN", "digits-gan"), ("CGAN", "digits-cgan"))
        for kind in ("defaults", "swept")
    }
    measured = workers.train(made.title, recipes)
    scores = scorer(dataset := data.load("digits"), Offers(labels=True))
    made.add_scores("real digits: the floor", scores.floor())
    for name in ("GAN, defaults", "GAN, swept", "WGAN, defaults", "WGAN, swept", "CGAN, defaults", "CGAN, swept"):
        made.add(name, measured[name])
    metrics = [column.metric for column in COLUMNS if column.metric != "class_accuracy"]
    for name, samples in baselines(dataset, scores.samples).items():
        made.add_scores(name, scores.score(Subject(samples), metrics))
    made.quote("GAN, plain loop", "26.7 to 38.1", "0.83", "0.58", "0.88")
    made.quote("WGAN defaults, plain loop", "715")
    made.quote("WGAN tuned, plain loop", "19.2 to 23.7", "0.91", "0.52", "0.83")
    made.quote("CGAN, plain loop", "13.0 to 18.2", "0.57", "0.70", "0.86", "0.983")
    cgan = measured["CGAN, swept"]
    made.checks += [
        at_least("CGAN swept, mean class accuracy", cgan.mean("class_accuracy"), 0.95, ".3f"),
        at_most("CGAN swept, mean FID", cgan.mean("fid"), 25, ".1f"),
    ]
    return made


def baselines(dataset: Dataset, n: int) -> dict[str, Tensor]:
    """n samples (n, *X) each of three models that anybody has; seed 0."""
    rng, train = torch.Generator().manual_seed(0), dataset.train
    pixels = train.flatten(1).double()
    gaussian = pixels.mean(dim=0) + torch.randn(n, pixels.shape[1], generator=rng, dtype=torch.float64) @ root(pixels)
    pairs = torch.randint(len(train), (2, n), generator=rng)
    return {
        "Gaussian of the pixels": gaussian.float().clamp(-1, 1).reshape(n, *dataset.sample_shape),
        "mean of two real digits": (train[pairs[0]] + train[pairs[1]]) / 2,
        "uniform noise": 2 * torch.rand(n, *dataset.sample_shape, generator=rng) - 1,
    }


def root(pixels: Tensor) -> Tensor:
    """The symmetric square root of the covariance; pixels that never vary leave it singular."""
    values, vectors = torch.linalg.eigh(pixels.T.cov())
    symmetric: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return symmetric
