"""What the driver remembers of a study is what stands in the database, and is not read from there again."""

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from saddlepoint.search.storage import open_storage

DISTRIBUTIONS = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "n": IntDistribution(1, 9),
                 "loss": CategoricalDistribution(["gan", "wgan", None])}  # fmt: skip


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def storage(url):
    return open_storage(url)


@pytest.fixture
def study(storage):
    return storage.create_new_study([StudyDirection.MINIMIZE], "sweep")


@pytest.fixture
def statements(storage):
    seen = []
    event.listen(storage.behind._backend.engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


def write(storage, study, chance, trials):
    """One write of a random kind to a random trial."""
    running = [trial_id for trial_id, state in trials.items() if state == TrialState.RUNNING]
    kind = chance.choice(["new", "waiting", "param", "value", "user", "system", "end"] if running else ["new"])
    if kind in ("new", "waiting"):
        state = TrialState.RUNNING if kind == "new" else TrialState.WAITING
        template = None if kind == "new" else create_trial(state=state, user_attrs={"queued": 1})
        trials[storage.create_new_trial(study, template)] = state
        return
    trial_id, key = chance.choice(running), f"key {chance.randrange(3)}"
    if kind == "param":
        name = chance.choice(list(DISTRIBUTIONS))
        if name not in storage.get_trial(trial_id).params:
            internal = {"lr": 1e-3, "n": 4.0, "loss": 2.0}[name]
            storage.set_trial_param(trial_id, name, internal, DISTRIBUTIONS[name])
    elif kind == "value":
        storage.set_trial_intermediate_value(trial_id, chance.randrange(5), chance.choice([1.5, float("inf")]))
    elif kind == "user":
        storage.set_trial_user_attr(trial_id, key, {"a": [1, chance.random()]})
    elif kind == "system":
        storage.set_trial_system_attr(trial_id, key, chance.random())
    else:
        trials[trial_id] = chance.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        storage.set_trial_state_values(trial_id, trials[trial_id], [0.5])


@pytest.mark.parametrize("seed", range(4))
def test_after_any_writes_it_is_what_another_reader_finds(storage, study, url, seed):
    chance, trials = random.Random(seed), {}
    for _ in range(5):
        write(storage, study, chance, trials)
    storage.alone = True
    for _ in range(60):
        write(storage, study, chance, trials)
        if chance.random() < 0.5:
            storage.get_all_trials(study, deepcopy=chance.random() < 0.5)
    trials[storage.create_new_trial(study)] = TrialState.RUNNING
    truth = open_storage(url).get_all_trials(study)
    assert len(truth) == len(trials) > 5
    assert {trial.state for trial in truth} > {TrialState.RUNNING, TrialState.WAITING}
    assert storage.get_all_trials(study) == truth
    assert [storage.get_trial(trial._trial_id) for trial in truth] == truth
    ended = [trial for trial in truth if trial.state.is_finished()]
    assert storage.get_all_trials(study, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)) == ended


def test_what_was_not_written_is_not_read_again(storage, study, statements):
    storage.alone = True
    ids = [storage.create_new_trial(study) for _ in range(3)]
    storage.get_all_trials(study)
    statements.clear()
    storage.get_all_trials(study)
    assert [storage.get_trial(trial_id).number for trial_id in ids] == [0, 1, 2]
    assert statements == []
    storage.set_trial_user_attr(ids[1], "note", 1)
    statements.clear()
    assert [trial.user_attrs for trial in storage.get_all_trials(study)] == [{}, {"note": 1}, {}]
    read = len(statements)
    assert read > 0
    storage.get_all_trials(study)
    assert len(statements) == read


def test_until_the_process_drives_it_reads_what_others_write(storage, study, url):
    trial_id = storage.create_new_trial(study)
    other = open_storage(url)
    for note in (1, 2):
        other.set_trial_user_attr(trial_id, "note", note)
        assert storage.get_trial(trial_id).user_attrs == {"note": note}
        assert storage.get_all_trials(study)[0].user_attrs == {"note": note}


def test_a_write_that_failed_after_it_arrived_is_seen(storage, study, monkeypatch):
    storage.alone = True
    trial_id = storage.create_new_trial(study)
    storage.get_all_trials(study)
    arrives = storage.behind.set_trial_user_attr

    def cut(*arguments):
        arrives(*arguments)
        raise ConnectionError

    monkeypatch.setattr(storage.behind, "set_trial_user_attr", cut)
    with pytest.raises(ConnectionError):
        storage.set_trial_user_attr(trial_id, "note", 1)
    assert storage.get_trial(trial_id).user_attrs == {"note": 1}


def test_who_changes_what_it_was_given_changes_nothing_else(storage, study):
    """Optuna's Trial writes into the copy that it was given."""
    storage.alone = True
    trial_id = storage.create_new_trial(study)
    storage.get_all_trials(study)
    given = storage.get_trial(trial_id)
    for notes in (given.params, given.distributions, given.user_attrs, given.system_attrs, given.intermediate_values):
        notes[1] = 1.0
    [remembered] = storage.get_all_trials(study)
    assert (remembered.params, remembered.user_attrs, remembered.system_attrs) == ({}, {}, {})
    assert (remembered.distributions, remembered.intermediate_values) == ({}, {})


def test_a_study_that_was_deleted_is_forgotten(storage, study):
    storage.alone = True
    storage.create_new_trial(study)
    assert len(storage.get_all_trials(study)) == 1
    storage.delete_study(study)
    again = storage.create_new_study([StudyDirection.MINIMIZE], "sweep")
    assert storage.get_all_trials(again) == []
    assert [found.study_name for found in optuna.get_all_study_summaries(storage)] == ["sweep"]
