"""The floors of the house, read from the imports: a dependency upwards or sideways is a failure."""

import ast
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saddlepoint import games

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "saddlepoint"

# From the ground up. A room may import what lies below it, and itself; sideways only what stands in SIDEWAYS.
FLOORS = (
    ("errors", "randomness"),
    ("imports", "remote", "validation"),
    ("files",),
    ("games", "networks", "data", "metrics"),
    ("space", "spec_objective", "spec_resources", "generator"),
    ("spec",),
    ("training",),
    ("tracking", "search", "scaling"),
    ("workflows",),
    ("console",),
    ("cli",),
    ("__main__",),
)
SIDEWAYS = {("metrics", "data")}
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ONLY_IN = {"mlflow": "tracking", "optuna": "search", "ray": "scaling"}


def sources() -> Iterator[tuple[str, str]]:
    """(path inside the package, text) of every module but the package's own front, `__init__.py`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).as_posix()
        if inside != "__init__.py":
            yield inside, path.read_text()


def imported(inside: str, source: str) -> Iterator[str]:
    """The absolute dotted names that a module imports, anywhere in it: `saddlepoint.games`, `ray.tune`."""
    package = ["saddlepoint", *Path(inside).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                yield from (".".join([*base, *([module] if module else []), alias.name]) for alias in names)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(path)), *_]):
                if name in ("import_module", "__import__"):
                    yield f"saddlepoint{path}" if path.startswith(".") else path


def violations(inside: str, source: str) -> list[str]:
    room = Path(inside).parts[0].removesuffix(".py")
    if room not in FLOOR:
        return [f"{inside}: the room {room!r} has no floor; give it one in FLOORS"]
    found = []
    for name in imported(inside, source):
        top, *rest = name.split(".")
        if top in ONLY_IN and room != ONLY_IN[top]:
            found.append(f"{inside}: only {ONLY_IN[top]} imports {top}")
        if top != "saddlepoint" or rest in ([], ["__version__"]):
            continue
        other = rest[0]
        if other == room or (room, other) in SIDEWAYS:
            continue
        if other not in FLOOR:
            found.append(f"{inside}: imports {name}, which is on no floor")
        elif FLOOR[other] >= FLOOR[room]:
            found.append(f"{inside}: {room} imports {other}, which does not lie below it")
    for node in ast.walk(ast.parse(source)):  # `import saddlepoint` is for its version; its front opens every room
        match node:
            case ast.Attribute(value=ast.Name(id="saddlepoint"), attr=attribute) if attribute != "__version__":
                if attribute not in FLOOR or FLOOR[attribute] >= FLOOR[room]:
                    found.append(f"{inside}: reaches saddlepoint.{attribute} through the front")
    return found


def test_imports_go_down_only() -> None:
    assert [line for inside, source in sources() for line in violations(inside, source)] == []


def test_every_room_of_the_house_was_read() -> None:
    rooms = {Path(inside).parts[0].removesuffix(".py") for inside, _ in sources()}
    assert rooms == set(FLOOR)


@pytest.mark.parametrize(
    ("inside", "source"),
    [
        ("errors.py", "from .files import write_text"),
        ("games/new.py", "from ..networks import build"),
        ("games/new.py", "from .. import data"),
        ("games/new.py", "import saddlepoint.training.plain"),
        ("data/new.py", "from saddlepoint.metrics import Scorer"),
        ("networks/new.py", "from ..games import Nets"),
        ("training/new.py", "def f():\n    from ..tracking import Tracker"),
        ("training/new.py", "import optuna"),
        ("training/new.py", "from ray import tune"),
        ("training/new.py", "import importlib\nimportlib.import_module('mlflow.pyfunc')"),
        ("training/new.py", "import saddlepoint\nsaddlepoint.sweep"),
        ("training/new.py", "from saddlepoint import sweep"),
        ("search/new.py", "from ..tracking.store import connect"),
        ("scaling/new.py", "from saddlepoint.search import Ledger"),
        ("scaling/new.py", "import optuna"),
        ("tracking/new.py", "from ..scaling import slots"),
        ("workflows/new.py", "from ..console import say"),
        ("workflows/new.py", "import mlflow"),
        ("novelty/new.py", "import math"),
    ],
)
def test_the_check_has_teeth(inside: str, source: str) -> None:
    assert violations(inside, source)


@pytest.mark.parametrize(
    ("inside", "source"),
    [
        ("metrics/new.py", "from ..data import Dataset"),
        ("training/new.py", "from .. import __version__, data, games\nfrom ..spec import Pipeline"),
        ("scaling/new.py", "import ray\nfrom ..training.loop import train"),
        ("games/new.py", "from .game import Game\nfrom . import gan"),
        ("metrics/new.py", "import saddlepoint\nsaddlepoint.__version__"),
    ],
)
def test_the_check_lets_the_right_ones_through(inside: str, source: str) -> None:
    assert violations(inside, source) == []


# what a description of a game must not know: who runs it, where, and what becomes of its numbers
FOREIGN = {
    "device",
    "cuda",
    "cpu",
    "to",
    "item",
    "detach",
    "backward",
    "step",
    "no_grad",
    "print",
    "logging",
    "log",
}


@pytest.mark.parametrize("name", games.GAMES)
def test_a_game_knows_no_device_no_log_and_no_runner(name: str) -> None:
    tree = ast.parse(Path(games.GAMES[name].__file__ or "").read_text())
    words = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=word):
                words.add(word)
            case ast.Import(names=names):
                words |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names):
                words |= {module, *(alias.name for alias in names)}
    assert not words & FOREIGN


@pytest.mark.parametrize("name", games.GAMES)
def test_a_loss_reads_as_its_equation(name: str) -> None:
    source = Path(games.GAMES[name].__file__ or "").read_text()
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    losses = [f for f in functions if [a.arg for a in f.args.args][:2] == ["nets", "batch"]]
    assert losses or "conditional(" in source  # the conditional form of another game has none of its own
    for loss in losses:
        assert len(loss.args.args) == 4  # (nets, batch, noise, hyperparameters): nothing else decides it
        assert (loss.end_lineno or 0) - loss.lineno < 15, loss.name


def test_no_file_has_grown_beyond_reading() -> None:
    long = {inside: n for inside, source in sources() if (n := len(source.splitlines())) > 400}
    assert long == {}


def test_the_folder_platform_does_not_hide_the_standard_librarys_module() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "platform").glob("*.py"))
    command = [sys.executable, "-c", "import platform; print(platform.__file__, platform.python_version())"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [platform.__file__, platform.python_version()]
    assert not Path(printed[0]).is_relative_to(ROOT)


LOADED = """
import sys
heavy = ("torch", "ray", "mlflow", "optuna")
import saddlepoint.cli
print(*[name for name in heavy if name in sys.modules])
import saddlepoint.training.loop
print(*[name for name in heavy if name in sys.modules])
"""


def test_the_command_line_opens_at_once_and_training_loads_no_room_above_it() -> None:
    """By indirect imports too, which the floors cannot show."""
    assert importlib.util.find_spec("ray")
    assert importlib.util.find_spec("mlflow")
    command = [sys.executable, "-c", LOADED]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["", "torch"]


def test_what_a_worker_is_sent_names_the_one_module_that_it_needs():
    """And so neither the ledger nor the tracking, which take it as long to import as torch; what that module itself
    imports is in tests/training/test_pictures.py."""
    program = (
        "import pickletools; from ray import cloudpickle; from saddlepoint.workflows import sweep;"
        "sent = cloudpickle.dumps([sweep.from_its_node, sweep.work]);"
        "print(*{text for _, text, _ in pickletools.genops(sent) if str(text).startswith('saddlepoint')})"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert told == ["saddlepoint.workflows.trial"]
