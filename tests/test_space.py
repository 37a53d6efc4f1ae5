"""Search spaces: what is read, what is refused and in which words, and the walk through conditions."""

import math
from pathlib import Path

import pytest
import yaml

from saddlepoint.errors import UserError
from saddlepoint.space import Space
from saddlepoint.validation import Strict, checked, parse_yaml, read_yaml

SHIPPED = Path(__file__).parents[1] / "search_spaces"

CONDITIONAL = """
game: g
parameters:
  momentum:  {type: float, low: 0.0, high: 1.0, default: 0.5, when: {optimizer: [sgd, rmsprop]}}
  optimizer: {type: choice, choices: [adam, sgd, rmsprop], default: adam}
  nesterov:  {type: choice, choices: [true, false], default: false, when: {optimizer: sgd}}
  dampening: {type: int, low: 0, high: 3, default: 1, when: {nesterov: false, optimizer: sgd}}
  training.batch_size: {type: fixed, value: 64}
"""


def space(text: str) -> Space:
    return checked(Space, parse_yaml(text, "s.yaml"), "s.yaml")


@pytest.mark.parametrize(
    ("file", "defaults"),
    [
        ("wgan.yaml", {"lr_critic": 5e-5, "lr_generator": 5e-5, "clip": 0.01, "n_critic": 5}),
        (
            "gan.yaml",
            {"lr_discriminator": 2e-4, "lr_generator": 2e-4, "beta1": 0.5, "form": "non_saturating"},
        ),
    ],
)
def test_shipped_spaces_start_from_the_papers(file, defaults):
    loaded = Space.load(SHIPPED / file)
    assert loaded.game == file.removesuffix(".yaml")
    assert loaded.defaults() == defaults
    assert list(loaded.names) == list(defaults)


def test_a_parameter_is_asked_for_only_under_its_condition_and_after_what_it_depends_on():
    asked = []

    def suggest(name, parameter):
        asked.append(name)
        return {"optimizer": "sgd", "nesterov": False, "momentum": 0.9, "dampening": 3}[name]

    values = space(CONDITIONAL).walk(suggest)
    assert values == {
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "dampening": 3,
        "training.batch_size": 64,
    }
    assert "training.batch_size" not in asked
    assert asked.index("optimizer") < asked.index("nesterov") < asked.index("dampening")
    assert space(CONDITIONAL).defaults() == {"optimizer": "adam", "training.batch_size": 64}


def test_corners_try_each_end_once_with_its_conditions_met():
    corners = space(CONDITIONAL).corners()
    assert corners[0] == space(CONDITIONAL).defaults()
    assert {
        "optimizer": "sgd",
        "momentum": 1.0,
        "nesterov": False,
        "dampening": 1,
        "training.batch_size": 64,
    } in corners
    assert {
        "optimizer": "sgd",
        "momentum": 0.5,
        "nesterov": False,
        "dampening": 3,
        "training.batch_size": 64,
    } in corners
    assert {"optimizer": "sgd", "momentum": 0.5, "nesterov": True, "training.batch_size": 64} in corners
    assert {"optimizer": "rmsprop", "momentum": 0.5, "training.batch_size": 64} in corners
    assert all(corners.count(corner) == 1 for corner in corners)

    wgan = Space.load(SHIPPED / "wgan.yaml").corners()
    assert len(wgan) == 1 + 2 + 2 + 2 + 2  # the defaults, three ranges, and the two other values of n_critic
    assert {corner["lr_critic"] for corner in wgan} == {5e-5, 1e-5, 1e-2}


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        ("{type: float, low: 2, high: 1, default: 1}", "a.low: 2.0 should be less than high, 1.0"),
        ("{type: float, low: 1, high: 1, default: 1}", "a.low: 1.0 should be less than high, 1.0"),
        (
            "{type: log_float, low: 0, high: 1, default: 1}",
            "a.low: 0.0 should be greater than 0 in a log range",
        ),
        (
            "{type: int, low: -1, high: 1, default: 1, log: true}",
            "a.low: -1 should be greater than 0 in a log",
        ),
        (
            "{type: log_float, low: 1e-4, high: 1, default: 5e-5}",
            "a.default: 5e-05 should lie within 0.0001 to",
        ),
        ("{type: int, low: 1, high: 3, default: 4}", "a.default: 4 should lie within 1 to 3"),
        ("{type: int, low: 1.5, high: 3, default: 2}", "a.low: 1.5 should be a valid integer"),
        ("{type: float, low: true, high: 3, default: 2}", "a.low: True should be a valid number"),
        ("{type: float, low: .nan, high: 3, default: 2}", "a.low: nan should be a finite number"),
        ("{type: float, low: 0, high: 1}", "a.default: is missing"),
        ("{type: float, lo: 0, high: 1, default: 1}", "a: 'lo' is not known; did you mean 'low'?"),
        (
            "{type: log_flaot, low: 1, high: 2, default: 1}",
            "a.type: 'log_flaot' is not known; did you mean 'log_float'?",
        ),
        ("{low: 1, high: 2, default: 1}", "a: the key 'type' is missing"),
        ("5", "a: 5 should be keys and values"),
        ("{type: choice, choices: [], default: 1}", "a.choices: [] should hold two values or more"),
        ("{type: choice, choices: [1], default: 1}", "a.choices: [1] should hold two values or more"),
        ("{type: choice, choices: [1, 1.0], default: 1}", "a.choices: [1, 1.0] should hold 1.0 once"),
        ("{type: choice, choices: [1, [2]], default: 1}", "a.choices.1: [2] should be a number, a word"),
        ("{type: choice, choices: [1, 2], default: 3}", "a.default: 3 should be one of the choices, [1, 2]"),
        ("{type: fixed, value: 1, when: {bb: 1}}", "a.when: 'bb' is not known; did you mean 'b'?"),
        ("{type: fixed, value: 1, when: {b: 7}}", "a.when.b: 7 is no value that b can take"),
        ("{type: fixed, value: 1, when: {b: []}}", "a.when.b: [] should name a value of b"),
        ("{type: fixed, value: 1, when: {x: 0.5}}", "a.when: 'x' should not be a float"),
        ("{type: int, low: 1, high: 3, default: 2, when: {c: 1}}", "'a -> c -> a' should not go round"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(parameter, line):
    others = """
  b: {type: choice, choices: [1, 2], default: 1}
  c: {type: int, low: 1, high: 2, default: 1, when: {a: 2}}
  x: {type: float, low: 0, high: 1, default: 0.5}"""
    if "c: 1" not in parameter:
        others = others.replace(", when: {a: 2}", "")
    with pytest.raises(UserError) as caught:
        space(f"game: g\nparameters:\n  a: {parameter}{others}")
    message = str(caught.value)
    assert message.startswith("s.yaml: parameters")
    assert line in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("game: g\nparamters: {}", "'paramters' is not known; did you mean 'parameters'?"),
        ("parameters: {}", "game: is missing"),
        ("game: g\ngame: h\nparameters: {}", "line 2, column 1: the key 'game' stands twice"),
        ("game: [g", "not YAML"),
        ("- game", "holds keys and values, this file holds a list"),
        ("", "this file holds nothing"),
        ("game: !!python/object:os.system x", "line 1"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_one_line(tmp_path, text, line):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        Space.load(file)
    assert line in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"search space: .*absent\.yaml does not exist"):
        Space.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path, "pipeline")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(UserError, match="cannot be read: not a text file"):
        read_yaml(tmp_path / "picture.png", "pipeline")


def test_numbers_without_a_dot_are_numbers():
    read = parse_yaml("[5e-5, 1E3, -2e+2, 1.5, .5, 1., 3, 1e, e5, 1.0.0, .inf, '5e-5']", "x")
    assert read == [5e-5, 1000.0, -200.0, 1.5, 0.5, 1.0, 3, "1e", "e5", "1.0.0", math.inf, "5e-5"]
    assert [type(value) for value in read[:7]] == [float] * 6 + [int]
    assert yaml.safe_load("5e-5") == "5e-5"  # other people's YAML is as it was


def test_paths_name_only_keys_that_the_user_wrote():
    class Inner(Strict):
        size: int

    class Outer(Strict):
        parts: list[Inner | str]
        inner: Inner

    with pytest.raises(UserError) as caught:
        checked(Outer, {"parts": ["x", {"size": "many"}], "inner": {"size": 1}}, "f")
    assert (
        str(caught.value) == "f: parts.1.size: 'many' should be a valid integer, unable to parse string as an integer"
    )
    with pytest.raises(UserError, match=r"^f: inner: 'sice' is not known; did you mean 'size'\?$"):
        checked(Outer, {"parts": [], "inner": {"sice": 1}}, "f")
