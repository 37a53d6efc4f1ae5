"""Scores of a generator against the held-out half: always the same reals, the same n, the same features.

Samples that are not finite make every metric NaN: nothing hides them, and the caller sees that the generator
broke.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import saddlepoint
from saddlepoint.data import Dataset
from saddlepoint.errors import UserError, unknown
from saddlepoint.metrics.catalogue import METRICS, Comparison, Metric, Samples
from saddlepoint.metrics.classifier import Classifier, classifier
from saddlepoint.metrics.features import extractor
from saddlepoint.metrics.latent import LATENT_METRICS, NEEDS_BINARY, is_binary, latent_scores, offered
from saddlepoint.metrics.subject import Offers, Subject

DEFAULT_SAMPLES = {"image": 5_000, "points": 2_500}  # at most, where the halves hold more


class Scorer:
    """Holds the real side of every comparison, so that scoring a generator costs its own side only.

    Args:
        offers: what the subjects will have.
        samples: n, for every score; by default as many as both halves hold, up to DEFAULT_SAMPLES.
        features, feature_weights, cache: see `extractor`.

    Raises:
        UserError: more samples than a half of the data holds, or features that it does not allow.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        offers: Offers = Offers(),
        samples: int | None = None,
        features: str = "auto",
        feature_weights: str | None = None,
        cache: Path | None = None,
    ) -> None:
        available = min(len(dataset.train), len(dataset.heldout))
        n = min(available, DEFAULT_SAMPLES[dataset.kind]) if samples is None else samples
        if not 1 <= n <= available:
            raise UserError(f"objective.samples: {n}; {dataset.name!r} allows 1 to {available}")
        self.samples = n
        self._dataset, self._offers, self._cache = dataset, offers, cache
        self._extract = extractor(dataset, features, feature_weights, cache)
        self._real = self._subset(dataset.heldout, dataset.heldout_labels)
        self._floor: dict[str, dict[str, float]] = {}
        self._judging: Classifier | None = None

    @property
    def protocol(self) -> dict[str, str | int]:
        """What must be equal for two scores to be comparable."""
        return {
            "features": self._extract.name,
            "features_hash": self._extract.hash,
            "samples": self.samples,
            "data_fingerprint": self._dataset.fingerprint,
            "saddlepoint": saddlepoint.__version__,
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that apply to this data, these features and this n, but for what is on request."""
        return tuple(name for name in self.available if METRICS[name].cost != "asked")

    @property
    def available(self) -> tuple[str, ...]:
        """All that apply."""
        return tuple(name for name, metric in METRICS.items() if self._obstacle(metric) is None)

    def score(self, subject: Subject, metrics: Sequence[str] | None = None) -> dict[str, float]:
        """The metrics, by default those of `metrics`, of a subject with `samples` samples.

        Raises:
            UserError: a metric that is unknown or does not apply; another number or shape of samples.
        """
        names = self._checked(metrics)
        expected = (self.samples, *self._dataset.sample_shape)
        shape = None if subject.samples is None else tuple(subject.samples.shape)
        if subject.samples is None or shape != expected:
            raise UserError(f"objective.samples: scoring needs {expected}, not {shape}")
        latent = self._latent(subject, [name for name in names if METRICS[name].needs == "latent"])
        pair = self._against_real(Samples(subject.samples, self._extract, subject.labels))
        rest = [name for name in names if name not in latent]
        return {key: value for name in rest for key, value in self._values(name, pair).items()} | latent

    def _latent(self, subject: Subject, names: Sequence[str]) -> dict[str, float]:
        if not names:
            return {}
        assert subject.latent is not None  # its game has said so: Offers
        return latent_scores(self._real.samples, subject.latent, metrics=names)

    def floor(self, metrics: Sequence[str] | None = None) -> dict[str, float]:
        """The same numbers for real data, n samples of the training half: what a perfect generator would get.

        Computed once for each metric; what is asked of a model and not of samples has none. A generator may come
        out below the floor only by chance.
        """
        names = [name for name in self._checked(metrics) if METRICS[name].needs != "latent"]
        if missing := [name for name in names if name not in self._floor]:
            pair = self._against_real(self._subset(self._dataset.train, self._dataset.train_labels))
            self._floor |= {name: self._values(name, pair) for name in missing}
        return {key: value for name in names for key, value in self._floor[name].items()}

    def _subset(self, half: Tensor, labels: Tensor | None) -> Samples:
        """n samples of a half, the same in every process; a half may be sorted, so not its first n."""
        rows = torch.from_numpy(np.random.default_rng(0).permutation(len(half))[: self.samples]).to(half.device)
        return Samples(half[rows], self._extract, None if labels is None else labels[rows])

    def _against_real(self, fake: Samples) -> Comparison:
        return Comparison(self._dataset, self._real, fake, self._judge)

    def _judge(self) -> Classifier:
        if self._judging is None:
            self._judging = classifier(self._dataset, self._cache, half="heldout")
        return self._judging

    def _values(self, name: str, pair: Comparison) -> dict[str, float]:
        metric = METRICS[name]
        keys = metric.keys(self._dataset)
        if not pair.fake.finite:
            return dict.fromkeys(keys, math.nan)
        assert metric.compute is not None  # those without are scored elsewhere
        value = metric.compute(pair)
        return dict(zip(keys, value if isinstance(value, list) else [value], strict=True))

    def _checked(self, metrics: Sequence[str] | None) -> Sequence[str]:
        for name in metrics or ():
            if name not in METRICS:
                raise unknown("objective.metric", name, self.metrics)
            if obstacle := self._obstacle(METRICS[name]):
                raise UserError(obstacle)
        return self.metrics if metrics is None else metrics

    def _obstacle(self, metric: Metric) -> str | None:
        """Why a metric cannot be had here."""
        data = self._dataset
        if data.kind not in metric.kinds:
            return f"objective.metric: {metric.name!r} is for data of kind {metric.kinds[0]}, not {data.kind}"
        if metric.needs == "classifier" and not isinstance(self._extract, Classifier):
            return f"objective.metric: {metric.name!r} needs features: classifier, not {self._extract.name}"
        if metric.needs == "mixture" and data.mixture is None:
            return f"objective.metric: {metric.name!r} needs data with known modes, as ring or grid"
        if metric.needs == "labels" and not (self._offers.labels and data.classes):
            return f"objective.metric: {metric.name!r} needs a conditional game, as cgan, on labelled data"
        if metric.needs == "latent":
            return self._no_latent(metric.name)
        if metric.needs == "translate":
            return f"objective.metric: {metric.name!r} is for a game between two domains, as cyclegan"
        if self.samples < (fewest := metric.fewest(data, self._extract)):
            return f"objective.samples: {self.samples}; {metric.name} here needs at least {fewest}"
        return None

    def _no_latent(self, name: str) -> str | None:
        z_dim = self._offers.latent
        if z_dim is None:
            return f"objective.metric: {name!r} needs a game with an encoder, as avb or vae"
        if name not in offered(z_dim):
            most = LATENT_METRICS[name].largest_z_dim
            return f"objective.metric: {name!r} needs a z_dim of at most {most}, not {z_dim}; take log_likelihood"
        if name in NEEDS_BINARY and not is_binary(self._real.samples):
            return (
                f"objective.metric: {name!r} needs images whose every pixel is -1 or 1, for p(x|z) is a Bernoulli's; "
                f"those of {self._dataset.name!r} are not (data option binary: true)"
            )
        return None
