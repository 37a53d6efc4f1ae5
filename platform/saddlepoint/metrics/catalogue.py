"""The metrics by name: what each needs, which way is better, and how it is read off a comparison."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor

from saddlepoint.data import Dataset, Kind
from saddlepoint.metrics.classes import accuracy, class_shares, total_variation
from saddlepoint.metrics.classifier import Classifier
from saddlepoint.metrics.density_ratio import FEWEST, DensityRatio, density_ratio
from saddlepoint.metrics.features import Extractor
from saddlepoint.metrics.frechet import Moments, frechet, moments
from saddlepoint.metrics.kernel import kid
from saddlepoint.metrics.latent import LATENT_METRICS, LatentMetric
from saddlepoint.metrics.manifold import K, Within, manifold, within
from saddlepoint.metrics.mixture import mixture_scores
from saddlepoint.metrics.transport import emd


class Samples:
    """n samples (n, *X), the labels (n,) that they have or were asked for, and what is computed from them, once."""

    def __init__(self, samples: Tensor, extract: Extractor, labels: Tensor | None = None) -> None:
        self.samples = samples.detach().float().cpu()
        self.labels = labels
        self._extract = extract

    @cached_property
    def finite(self) -> bool:
        """Whether all values are, those of the features included, which overflow before the samples do."""
        return bool(self.samples.isfinite().all()) and bool(self.features.isfinite().all())

    @cached_property
    def features(self) -> Tensor:
        return self._extract(self.samples)

    @cached_property
    def moments(self) -> Moments:
        return moments(self.features)

    @cached_property
    def within(self) -> Within:
        return within(self.features)

    @cached_property
    def class_shares(self) -> Tensor:
        assert isinstance(self._extract, Classifier)  # Metric.needs
        return class_shares(self._extract.probabilities(self.features))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Real and generated samples side by side, over one data set."""

    dataset: Dataset
    real: Samples
    fake: Samples
    judge: Callable[[], Classifier]  # trained on the held-out half alone

    @cached_property
    def manifold(self) -> Mapping[str, float]:
        return manifold(self.real.features, self.fake.features, self.real.within)

    @cached_property
    def ratio(self) -> DensityRatio:
        """Of the features: in pixels any smooth generator gives itself away."""
        return density_ratio(self.fake.features, self.real.features)

    @cached_property
    def mixture(self) -> Mapping[str, float]:
        assert self.dataset.mixture is not None  # Metric.needs
        return mixture_scores(self.fake.samples, self.dataset.mixture.means, self.dataset.mixture.std)


Fewest = Callable[[Dataset, Extractor], int]
Needs = Literal[  # beside the samples
    "nothing", "classifier", "mixture",
    "labels",  # asked for: of a conditional game, or those of what was translated
    "latent",  # a game with an encoder: metrics/latent.py
    "translate",  # a game between two domains: metrics/translation.py
]  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One number about a generator, or one for each class."""

    name: str
    better: Literal["lower", "higher", "none"]
    compute: Callable[[Comparison], float | list[float]] | None  # None: no comparison of samples, see `needs`
    fewest: Fewest  # samples below which it is an error and not a number
    kinds: tuple[Kind, ...] = ("image", "points")
    needs: Needs = "nothing"
    cost: Literal["cheap", "costly", "asked"] = "cheap"  # costly: at the end only; asked: only where it is named
    per_class: bool = False

    def badness(self, value: float) -> float:
        """What to sort by, best first, and what a search minimises."""
        return -value if self.better == "higher" else value

    def is_better(self, value: float, other: float) -> bool:
        """Never for NaN: a comparison with it is false."""
        return self.badness(value) < self.badness(other)

    def keys(self, dataset: Dataset) -> list[str]:
        """What its values are called: fid; class_share_0, class_share_1 ..."""
        if not self.per_class:
            return [self.name]
        return [f"{self.name}_{label}" for label in range(dataset.classes or 0)]


def _fid(pair: Comparison) -> float:
    return frechet(pair.real.moments, pair.fake.moments)


def _kid(pair: Comparison) -> float:
    return kid(pair.real.features, pair.fake.features)


def _emd(pair: Comparison) -> float:
    return emd(pair.real.samples, pair.fake.samples)


def _class_tv(pair: Comparison) -> float:
    return total_variation(pair.real.class_shares, pair.fake.class_shares)


def _class_share(pair: Comparison) -> list[float]:
    return pair.fake.class_shares.tolist()


def _class_accuracy(pair: Comparison) -> float:
    assert pair.fake.labels is not None  # Metric.needs
    return accuracy(pair.judge().classify(pair.fake.samples), pair.fake.labels)


def _neighbours(name: str, better: Literal["lower", "higher"]) -> Metric:
    return Metric(name, better, lambda pair: pair.manifold[name], _at_least(K + 1))


def _mixture(name: str, better: Literal["lower", "higher", "none"]) -> Metric:
    return Metric(name, better, lambda pair: pair.mixture[name], _modes, ("points",), "mixture")


def _at_least(n: int) -> Fewest:
    return lambda dataset, extract: n


def _more_than_features(dataset: Dataset, extract: Extractor) -> int:
    return extract.dimension + 1


def _classes(dataset: Dataset, extract: Extractor) -> int:
    return dataset.classes or 1


def _modes(dataset: Dataset, extract: Extractor) -> int:
    return len(dataset.mixture.means) if dataset.mixture else 1


def _latent(name: str, metric: LatentMetric) -> Metric:
    return Metric(name, metric.better, None, _at_least(1), needs="latent", cost=metric.cost)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fid", "lower", _fid, _more_than_features, ("image",)),
        Metric("kid", "lower", _kid, _at_least(2), ("image",)),
        _neighbours("precision", "higher"),
        _neighbours("recall", "higher"),
        _neighbours("density", "higher"),
        _neighbours("coverage", "higher"),
        _neighbours("one_nn", "lower"),
        Metric("emd", "lower", _emd, _at_least(1), cost="costly"),
        Metric("class_tv", "lower", _class_tv, _classes, ("image",), "classifier"),
        Metric("class_accuracy", "higher", _class_accuracy, _at_least(1), ("image",), "labels"),
        Metric("class_share", "none", _class_share, _classes, ("image",), "classifier", per_class=True),
        _mixture("modes", "higher"),
        _mixture("high_quality", "higher"),
        _mixture("reverse_kl", "lower"),
        _mixture("reverse_kl_all", "lower"),
        _mixture("std_ratio", "none"),
        Metric("kl_ratio", "lower", lambda pair: pair.ratio.kl_pq, _at_least(FEWEST), cost="asked"),
        Metric("jsd_ratio", "lower", lambda pair: pair.ratio.jsd, _at_least(FEWEST), cost="asked"),
        *(_latent(name, metric) for name, metric in LATENT_METRICS.items()),
        Metric("paired_l1", "lower", None, _at_least(1), needs="translate"),
        Metric("cycle_l1", "lower", None, _at_least(1), needs="translate"),
    )
}
