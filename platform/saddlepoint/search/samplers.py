"""Samplers by name: what proposes the next configuration from the trials that the ledger holds.

Every trial draws from its own random stream, a function of the sweep's seed and the trial's number. A sweep
that was killed and reopened therefore neither repeats the numbers that it drew before nor depends on when
it was killed.
"""

import warnings
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from saddlepoint.errors import unknown


def derive(seed: int, *path: int | str) -> int:
    """A seed in [0, 2**32) for one purpose, independent of those for other paths."""
    digest = blake2b("/".join(str(part) for part in (seed, *path)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


# Arguments: the seed that all trials of the sweep share, the trial's own, whether the space has conditions.
_SAMPLERS: dict[str, Callable[[int, int, bool], BaseSampler]] = {
    # Chosen for the usual sweep: some 20 trials in 4 dimensions, 2 at a time. Six random trials before the
    # model takes over (over 240 seeds of two test landscapes 8 were slightly worse; Optuna's default, 10,
    # clearly); multivariate, since learning rates and clip matter through their ratios; running trials
    # count as bad ones (constant_liar), so that parallel workers do not crowd in one place; with
    # conditions, the joint model covers each group of parameters that appear together.
    "tpe": lambda shared, own, conditional: TPESampler(
        seed=own, n_startup_trials=6, multivariate=True, group=conditional, constant_liar=True
    ),
    "random": lambda shared, own, conditional: RandomSampler(seed=own),
    # One scrambled Sobol sequence for the whole sweep; how far it has come stands in the storage, under its
    # seed.
    "qmc": lambda shared, own, conditional: QMCSampler(
        seed=shared,
        scramble=True,
        independent_sampler=RandomSampler(seed=own),
        warn_independent_sampling=False,
    ),
    # The distribution that it adapts stands in the storage; choices fall to the random sampler.
    "cmaes": lambda shared, own, conditional: CmaEsSampler(
        seed=own, independent_sampler=RandomSampler(seed=own), warn_independent_sampling=False
    ),
    "gp": lambda shared, own, conditional: GPSampler(seed=own, n_startup_trials=6, warn_independent_sampling=False),
}


class PerTrial(BaseSampler):
    """Optuna's sampler of that name, built anew for each trial; all that it knows comes from the storage.

    Of the trials that did not run to their end, "tpe" learns too (pruned ones by their last value, diverged
    ones as infeasible); "gp" and "cmaes" learn from complete trials only.
    """

    def __init__(self, name: str, *, seed: int, conditional: bool = False) -> None:
        """`conditional`: the space has parameters under a condition. Raises UserError for an unknown name."""
        if name not in _SAMPLERS:
            raise unknown("search.sampler", name, _SAMPLERS)
        self._make = _SAMPLERS[name]
        self._seed = seed
        self._conditional = conditional
        self._current: tuple[int, BaseSampler] | None = None

    def _for(self, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            shared, own = derive(self._seed, "sampler"), derive(self._seed, trial.number, "sampler")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._current = trial.number, self._make(shared, own, self._conditional)
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._for(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._for(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._for(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: these samplers learn nothing from a trial's end but what the storage holds."""
