"""A study's trials, remembered by the process that drives it, so that the database is read for what was changed alone.

Optuna reads a trial that has not ended anew whenever it is asked for it, as another process could have written to it:
nine times for a suggestion and an end. A sweep has one driver; what that has not written is as it was.
"""

import copy
from collections.abc import Container, Iterator, Sequence, Set
from contextlib import contextmanager
from threading import RLock
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState


class Remembered(BaseStorage):
    """`behind`, every write of which goes there at once. Until `alone` is set, every read does too; from then on, no
    other process may write to the studies that are read here."""

    def __init__(self, behind: BaseStorage) -> None:
        self.behind, self.alone = behind, False
        self._known: dict[int, dict[int, FrozenTrial]] = {}  # of a study, by id
        self._written: set[int] = set()  # trials to be read anew
        self._lock = RLock()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            for trials in self._known.values():
                if trial_id in trials:
                    self._refresh(trials, {trial_id})
                    return _own(trials[trial_id])
        return self.behind.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if not self.alone:
            return self.behind.get_all_trials(study_id, deepcopy, states)
        with self._lock:
            if study_id not in self._known:
                self._known[study_id] = {t._trial_id: t for t in self.behind.get_all_trials(study_id, deepcopy=False)}
                self._written -= self._known[study_id].keys()
            known = self._known[study_id]
            self._refresh(known, known.keys())
            trials = [trial for trial in known.values() if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _refresh(self, known: dict[int, FrozenTrial], trial_ids: Set[int]) -> None:
        for trial_id in self._written & trial_ids:
            known[trial_id] = self.behind.get_trial(trial_id)
            self._written.remove(trial_id)

    @contextmanager
    def _writing(self, trial_id: int) -> Iterator[None]:
        try:
            yield
        finally:  # also if it failed: it may have arrived
            with self._lock:
                self._written.add(trial_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = self.behind.create_new_trial(study_id, template_trial)
        with self._lock:
            if study_id in self._known:
                self._known[study_id][trial_id] = self.behind.get_trial(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._writing(trial_id):
            self.behind.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._writing(trial_id):
            return self.behind.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._writing(trial_id):
            self.behind.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            self.behind.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            self.behind.set_trial_system_attr(trial_id, key, value)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.behind.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.behind.delete_study(study_id)
        with self._lock:
            self._known.pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.behind.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.behind.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.behind.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.behind.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.behind.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.behind.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.behind.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.behind.get_all_studies()


def _own(trial: FrozenTrial) -> FrozenTrial:
    """A copy to which Optuna's `Trial` may write what it has told the storage."""
    own = copy.copy(trial)
    own.params, own.distributions = dict(trial.params), dict(trial.distributions)
    own.user_attrs, own.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    own.intermediate_values = dict(trial.intermediate_values)
    return own
