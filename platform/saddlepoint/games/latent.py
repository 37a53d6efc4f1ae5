"""What the games with latents share: a prior N(0, I), Gaussians, and a decoder whose pixels are Bernoulli.

Shapes   B batch, Z latent, X the shape of one image.   Unit   nats, summed over coordinates or pixels: (B,).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def log_normal(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(z; mean, diag(variance)) of (B, Z)."""
    return -0.5 * ((z - mean).square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)


def log_prior(z: Tensor) -> Tensor:
    """log p(z), p = N(0, I)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def log_bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x|z) of images in [-1, 1], of which the pixels see (x + 1) / 2; a density only where that is 0 or 1."""
    return -binary_cross_entropy_with_logits(logits, (x + 1) / 2, reduction="none").flatten(1).sum(1)


def means(logits: Tensor) -> Tensor:
    """The expected image, in [-1, 1]: what is shown, and scored, as a sample."""
    return 2 * torch.sigmoid(logits) - 1


def constant(value: Tensor) -> Tensor:
    """A stop-gradient that is part of the mathematics, other than those that follow from who moves."""
    return value.detach()
