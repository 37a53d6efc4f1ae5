"""Scores of a translator between two domains, each direction by itself and the mean of both.

What is translated are held-out images of one domain; what they are scored against are held-out images of the other.
Where the held-out halves are paired, these are not their true counterparts, as long as n allows: else a translator
could come out better than real data.

    fid, recall ...   the metrics of samples: G(x) as samples of the domain of y, F(y) as samples of that of x
    paired_l1         mean |G(x_i) - y_i| over true pairs
    class_accuracy    how often G(x_i) is judged to be of x_i's class
    cycle_l1          mean |F(G(x)) - x|; low for wrong counterparts too, so it shows nothing alone

Values are differences in [-1, 1] units; each metric is there three times: fid, fid_x_to_y, fid_y_to_x.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saddlepoint.data import Dataset
from saddlepoint.errors import UserError, unknown
from saddlepoint.metrics.catalogue import METRICS
from saddlepoint.metrics.classes import accuracy
from saddlepoint.metrics.classifier import Classifier, classifier
from saddlepoint.metrics.scorer import DEFAULT_SAMPLES, Scorer
from saddlepoint.metrics.subject import Subject

PAIRED, CYCLE, ACCURACY = "paired_l1", "cycle_l1", "class_accuracy"
BATCH, NUMBERS = 64, 1 << 20  # translated at once, at most: images, and numbers in them

Translator = Callable[[Tensor], Tensor]


class Direction:
    """n held-out images of one domain, and the scorer of the other, into which they are translated."""

    def __init__(self, source: Dataset, target: Dataset, paired: bool, scorer: Scorer, cache: Path | None) -> None:
        self.target, self.scorer, self._cache = target, scorer, cache
        self.images, self.labels = _held_out(source, scorer.samples)
        self.real, self.real_labels = _held_out(target, scorer.samples)  # row by row the counterparts, if there are
        self.paired = paired

    def score(self, there: Translator, back: Translator, names: Sequence[str]) -> dict[str, float]:
        translated = _translated(there, self.images)
        if translated.shape != self.real.shape:
            got, wanted = tuple(translated.shape), tuple(self.real.shape)
            raise UserError(f"model: gives translations of shape {got}; the data asks for {wanted}")
        if not translated.isfinite().all():
            return dict.fromkeys(names, math.nan)
        own: dict[str, Callable[[], float]] = {
            PAIRED: lambda: _l1(translated, self.real),
            CYCLE: lambda: _l1(_translated(back, translated), self.images),
            ACCURACY: lambda: self._accuracy(translated, self.labels),
        }
        samples = self.scorer.score(Subject(translated), [name for name in names if name not in own])
        return {name: own[name]() if name in own else samples[name] for name in names}

    def floor(self, names: Sequence[str]) -> dict[str, float]:
        """What the true counterparts score; where they are not known, other real images."""
        own: dict[str, Callable[[], float]] = {
            PAIRED: lambda: 0.0,
            CYCLE: lambda: 0.0,
            ACCURACY: lambda: self._accuracy(self.real, self.real_labels),
        }
        rest = [name for name in names if name not in own]
        samples = self.scorer.score(Subject(self.real), rest) if self.paired else self.scorer.floor(rest)
        return {name: own[name]() if name in own else samples[name] for name in names}

    def _accuracy(self, images: Tensor, labels: Tensor | None) -> float:
        assert labels is not None  # TranslationScorer.metrics
        probabilities = self._judge.classify(images)
        return accuracy(probabilities, labels) if probabilities.isfinite().all() else math.nan

    @cached_property
    def _judge(self) -> Classifier:
        """Trained on the training half of the domain: one that had seen the true counterparts would know them."""
        return classifier(self.target, self._cache, half="train")


class TranslationScorer:
    """Scores subjects that translate, on a data set with a target. The face is that of `Scorer`.

    Args:
        samples: n of each direction; by default as many as all four halves hold, up to DEFAULT_SAMPLES, and of
            paired ones no more than half.
        features, feature_weights, cache: see `extractor`; each domain has its own.

    Raises:
        UserError: one domain only, more samples than a half holds, or features that a domain does not allow.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        samples: int | None = None,
        features: str = "auto",
        feature_weights: str | None = None,
        cache: Path | None = None,
    ) -> None:
        x, y = dataset, _target(dataset)
        fewest = min(len(half) for domain in (x, y) for half in (domain.train, domain.heldout))
        if dataset.paired:
            fewest = min(fewest, max(1, len(x.heldout) // 2))
        n = min(fewest, DEFAULT_SAMPLES[x.kind]) if samples is None else samples
        of_x, of_y = (
            Scorer(domain, samples=n, features=features, feature_weights=feature_weights, cache=cache)
            for domain in (x, y)
        )
        self.samples = n
        self._dataset = dataset
        self._ways = {
            "x_to_y": Direction(x, y, dataset.paired, of_y, cache),
            "y_to_x": Direction(y, x, dataset.paired, of_x, cache),
        }
        self._floor: dict[str, dict[str, float]] = {}

    @property
    def protocol(self) -> dict[str, str | int]:
        """What must be equal for two scores to be comparable."""
        of_y, of_x = (way.scorer.protocol for way in self._ways.values())
        both = hashlib.sha256(f"{of_x['features_hash']}\n{of_y['features_hash']}".encode()).hexdigest()
        return {**of_x, "features_hash": both}  # the fingerprint of the data is over both domains

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that apply to these data, these features and this n."""
        x, y = self._dataset, _target(self._dataset)
        judged = x.kind == "image" and x.classes is not None and x.classes == y.classes
        own = {PAIRED: x.paired, CYCLE: True, ACCURACY: judged}
        of_samples = set.intersection(*(set(way.scorer.metrics) for way in self._ways.values()))
        return tuple(
            name for name, metric in METRICS.items() if own.get(name, name in of_samples and not metric.per_class)
        )

    @property
    def available(self) -> tuple[str, ...]:
        """The same: nothing here is on request only."""
        return self.metrics

    def score(self, subject: Subject, metrics: Sequence[str] | None = None) -> dict[str, float]:
        """The metrics, by default all that apply, of a subject that translates both ways.

        Raises:
            UserError: a metric that is unknown or does not apply; a subject that lacks a direction, or whose
                translations do not have the shape of the other domain.
        """
        names = self._checked(metrics)
        if missing := [way for way in self._ways if way not in subject.translate]:
            raise UserError(f"model: does not translate {missing[0]}; scoring needs x_to_y and y_to_x")
        there, back = (subject.translate[way] for way in self._ways)
        x_to_y, y_to_x = self._ways.values()
        return _joined(names, x_to_y.score(there, back, names), y_to_x.score(back, there, names))

    def floor(self, metrics: Sequence[str] | None = None) -> dict[str, float]:
        """The same numbers for true counterparts and other real images; computed once for each metric."""
        names = self._checked(metrics)
        if missing := [name for name in names if name not in self._floor]:
            x_to_y, y_to_x = (way.floor(missing) for way in self._ways.values())
            self._floor |= {name: _joined([name], x_to_y, y_to_x) for name in missing}
        return {key: value for name in names for key, value in self._floor[name].items()}

    def _checked(self, metrics: Sequence[str] | None) -> Sequence[str]:
        known = self.metrics
        for name in metrics or ():
            if name not in METRICS:
                raise unknown("objective.metric", name, known)
            if name not in known:
                self._refuse(name)
        return known if metrics is None else metrics

    def _refuse(self, name: str) -> None:
        """Raises UserError: why a metric cannot be had here."""
        data = self._dataset.name
        if name == PAIRED:
            raise UserError(f"objective.metric: {name!r} needs held-out images in true pairs, and {data!r} has none")
        if name == ACCURACY:
            raise UserError(
                f"objective.metric: {name!r} needs two domains of images with the same labels, not {data!r}"
            )
        for way in self._ways.values():
            way.scorer.floor([name])  # raises, and says why
        raise UserError(f"objective.metric: {name!r} is not for translations; take {ACCURACY}")


def baselines(dataset: Dataset) -> dict[str, Subject]:
    """Translators that anybody has, to be scored beside a trained one: what was learned must beat both."""

    def identity(images: Tensor) -> Tensor:
        return images

    def mean_of(domain: Dataset) -> Translator:
        mean = domain.train.mean(dim=0).cpu()
        return lambda images: mean.expand(len(images), *mean.shape)

    means = {"x_to_y": mean_of(_target(dataset)), "y_to_x": mean_of(dataset)}
    return {
        "identity": Subject(translate={"x_to_y": identity, "y_to_x": identity}),
        "mean image": Subject(translate=means),
    }


def _target(dataset: Dataset) -> Dataset:
    if dataset.target is None:
        raise UserError(f"data.name: {dataset.name!r} is one domain; a translator needs two")
    return dataset.target


def _held_out(dataset: Dataset, n: int) -> tuple[Tensor, Tensor | None]:
    """n held-out images and their labels: the last of the permutation of which the scorer's reals are the first."""
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(dataset.heldout))[-n:]).to(dataset.heldout.device)
    labels = dataset.heldout_labels
    return dataset.heldout[rows].cpu(), None if labels is None else labels[rows].cpu()


@torch.no_grad()
def _translated(translate: Translator, images: Tensor) -> Tensor:
    size = max(1, min(BATCH, NUMBERS // images[0].numel()))
    return torch.cat([translate(part).detach().float().cpu() for part in torch.split(images, size)])


def _l1(images: Tensor, others: Tensor) -> float:
    return float((images - others).abs().mean(dtype=torch.float64))


def _joined(names: Sequence[str], x_to_y: Mapping[str, float], y_to_x: Mapping[str, float]) -> dict[str, float]:
    keys: dict[str, float] = {}
    for name in names:
        keys[name] = (x_to_y[name] + y_to_x[name]) / 2
        keys[f"{name}_x_to_y"], keys[f"{name}_y_to_x"] = x_to_y[name], y_to_x[name]
    return keys
