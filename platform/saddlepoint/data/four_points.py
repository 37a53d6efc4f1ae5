"""Four points: the toy of adversarial variational Bayes (Mescheder, Nowozin & Geiger 2017, arXiv:1701.04722, 5.1)."""

import torch

from saddlepoint.data.dataset import Dataset, require


def four_points(train: int = 4096, heldout: int = 1024) -> Dataset:
    """Images (1, 2, 2) with one lit pixel: 1 on -1, each of the four equally often; labels 0..3 say which.

    Nothing is drawn. No model can give them a mean log-likelihood above -log 4 = -1.386 nats.
    """
    labels = [_balanced(option, n) for option, n in (("train", train), ("heldout", heldout))]
    images = [(2 * torch.eye(4)[half] - 1).reshape(-1, 1, 2, 2) for half in labels]
    return Dataset.build("four_points", "image", *images, train_labels=labels[0], heldout_labels=labels[1], classes=4)


def _balanced(option: str, n: int) -> torch.Tensor:
    require(n >= 4 and n % 4 == 0, option, n, "a multiple of 4, at least 4")
    return torch.arange(n) % 4
