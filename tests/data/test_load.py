"""`load` and import paths: every wrong input is one line that names the key, and says what would be right."""

import inspect
import sys

import pytest

from saddlepoint.data import DATASETS, Dataset, load
from saddlepoint.errors import UserError
from saddlepoint.imports import resolve

OWN = """
import torch
from saddlepoint.data import Dataset

class Sets:
    @staticmethod
    def points(n: int, shift: float = 0.0, path: "str | None" = None, **more) -> Dataset:
        return Dataset.build("own", "points", torch.zeros(n, 2) + shift, torch.ones(n + len(more), 2))

def strict(n: "Unknown" = 3) -> Dataset:
    return Sets.points(n)

def nothing():
    return None

def fails():
    raise RuntimeError("no\\n  such disk")

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with modules of the user's own, not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "own_sets.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import no_such_library")
    (tmp_path / "own_raises.py").write_text("raise ValueError('first\\nsecond')")
    (tmp_path / "own_exits.py").write_text("import sys; sys.exit(3)")


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_set_has_a_default_but_for_what_it_must_be_told():
    needed = {"image_folder": "path", "unpaired_folder": "path", "parquet": "path", "unpaired": "x"}
    assert needed.keys() < DATASETS.keys()
    for name, function in DATASETS.items():
        parameters = inspect.signature(function).parameters.values()
        assert any(parameter.default is parameter.empty for parameter in parameters) == (name in needed)
    for name, option in needed.items():
        assert message(load, name) == f"data.{option}: missing; {name} needs it"


def test_unknown_names_come_with_the_nearest():
    assert message(load, "digit") == "data.name: 'digit' is not known; did you mean 'digits'?"
    assert message(load, "ring", sdt=0.1) == "data.sdt: 'sdt' is not known; did you mean 'std'?"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ring", {"modes": 8.0}, "data.modes: 8.0 is float; ring takes int"),
        ("ring", {"modes": True}, "data.modes: True is bool; ring takes int"),
        ("ring", {"std": "small"}, "data.std: 'small' is str; ring takes float"),
        ("ring", {"std": None}, "data.std: None is NoneType; ring takes float"),
        ("image_folder", {"path": 3}, "data.path: 3 is int; image_folder takes str"),
    ],
)
def test_values_of_the_wrong_type(name, options, says):
    assert message(load, name, **options).startswith(says)


def test_one_s_own_function(own):
    data = load("own_sets:Sets.points", n=4, shift=1, path=None, extra=1)
    assert isinstance(data, Dataset)
    assert data.train.tolist() == [[1, 1]] * 4
    assert len(data.heldout) == 5
    assert len(load("own_sets:strict").train) == 3


def test_one_s_own_function_gone_wrong(own):
    assert message(load, "own_sets:Sets.points") == "data.n: missing; own_sets:Sets.points needs it"
    assert message(load, "own_sets:Sets.points", n="4").startswith("data.n: '4' is str;")
    assert message(load, "own_sets:Sets.points", n=4, path=3).startswith("data.path: 3 is int;")
    assert message(load, "own_sets:nothing").endswith("returns NoneType; it must return a Dataset")
    assert message(load, "own_sets:number").endswith("is int; it must be a function")
    assert message(load, "own_sets:fails").endswith("fails: RuntimeError: no such disk")
    assert "none of them 0" in message(load, "own_sets:Sets.points", n=0)


@pytest.mark.parametrize("path", ["", "own_sets", "own_sets.Sets", ":x", "own_sets:", ".own:x", "a b:c", "a:b:c"])
def test_what_is_no_import_path(own, path):
    assert message(resolve, "networks.critic", path).startswith(f"networks.critic: {path!r} is not an import path")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("own_set:points", "there is no module 'own_set', here or installed"),
        ("own_sets.nets:Critic", "there is no module 'own_sets.nets', here or installed"),
        (
            "own_broken:x",
            "module 'own_broken' fails while it is imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("own_raises:x", "module 'own_raises' fails while it is imported: ValueError: first second"),
        ("own_exits:x", "module 'own_exits' fails while it is imported: SystemExit: 3"),
        ("own_sets:strickt", "'strickt' is not known; did you mean 'strict'?"),
        ("own_sets:Sets.point", "'point' is not known; did you mean 'points'?"),
    ],
)
def test_import_paths_that_lead_nowhere(own, path, says):
    assert message(resolve, "networks.critic", path) == f"networks.critic: {path!r}: {says}"


def test_a_module_written_a_moment_ago_is_found(own, tmp_path):
    assert resolve("games.name", "own_sets:number") == 3
    (tmp_path / "own_late.py").write_text("value = 5")
    assert resolve("games.name", "own_late:value") == 5
