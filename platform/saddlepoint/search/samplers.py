"""Samplers by name: what proposes the next configuration from the trials that the ledger holds.

Every trial draws from its own random streams, functions of the sweep's seed and the trial's number: one for what it
draws at once, one for each parameter that it draws by itself. A sweep that was killed and reopened, be it between two
parameters of a trial, therefore draws what it would have drawn. (The sequence of "qmc" may pass over a point then.)
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from saddlepoint.errors import UserError, unknown
from saddlepoint.metrics.objective import Objective
from saddlepoint.randomness import derive

# Arguments: the seed that all trials of the sweep share, the trial's own, whether the space has conditions.
_SAMPLERS: dict[str, Callable[[int, int, bool], BaseSampler]] = {
    # Chosen for the usual sweep: some 20 trials in 4 dimensions, 2 at a time. Six random trials before the
    # model takes over (over 240 seeds of two test landscapes 8 were slightly worse; Optuna's default, 10,
    # clearly); multivariate, since learning rates and clip matter through their ratios; running trials
    # count as bad ones (constant_liar), so that parallel workers do not crowd in one place; with
    # conditions, the joint model covers each group of parameters that appear together. Every fifth trial is
    # drawn at random all the same, see STRAY.
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

# Alone, TPE may stay for good where it found something early: on one of 150 landscapes of benchmarks/simulator.py it
# had nothing good in 2,000 trials. So it is BOHB's mixture (Falkner et al. 2018), with fewer random trials than its
# third. On 150 others the median stays (1,960 rounds without, 1,930 with), the 90 % quantile falls from 9,190 to 5,390.
STRAY = 5


def check_sampler(name: str, objective: Objective) -> None:
    """Raises UserError for an unknown name, and for an objective that this sampler would not heed."""
    if name not in _SAMPLERS:
        raise unknown("search.sampler", name, _SAMPLERS)
    if name == "cmaes":
        for key, given in (("second", objective.second), ("constraints", objective.bounds)):
            if given:
                raise UserError(f"search.sampler: 'cmaes' knows no objective.{key}; take tpe, gp, qmc or random")


class PerTrial(BaseSampler):
    """Optuna's sampler of that name, built anew for each trial; all that it knows comes from the storage.

    Of the trials that did not run to their end, "tpe" learns too (pruned ones by how far they came, then by how they
    stood there; diverged ones as infeasible); "gp" and "cmaes" learn from complete trials only. All but "cmaes" take
    two objectives, and "tpe" and "gp" the bounds on others as constraints.
    """

    def __init__(self, name: str, *, seed: int, conditional: bool = False, generation: int = 1) -> None:
        """`conditional`: the space has parameters under a condition. `generation`: how often the sweep was extended,
        and one: the sequence that its trials share begins anew. Raises UserError for an unknown name."""
        if name not in _SAMPLERS:
            raise unknown("search.sampler", name, _SAMPLERS)
        self.at_random = False  # for the next trials: the model has nothing new to propose
        self._name = name
        self._seed, self._generation = seed, generation
        self._conditional = conditional
        self._current: tuple[tuple[int | str, ...], BaseSampler] | None = None

    def _for(self, number: int, *parameter: str) -> BaseSampler:
        """For a trial, or for one parameter of it."""
        purpose: tuple[int | str, ...] = (number, *parameter)
        if self._current is None or self._current[0] != purpose:
            strays = self._name == "tpe" and number % STRAY == 0
            make = _SAMPLERS["random" if self.at_random or strays else self._name]
            shared = _seed(self._seed, "sampler", "generation", self._generation)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._current = purpose, make(shared, _seed(self._seed, "sampler", *purpose), self._conditional)
        return self._current[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._for(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._for(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._for(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: these samplers learn nothing from a trial's end but what the storage holds."""


def _seed(seed: int, *purpose: str | int) -> int:
    return derive(seed, *purpose) % 2**32  # as NumPy wants it
