"""docs/cluster.md and docs/gpu.md: what they say is typed can be typed, and what can run here does.

A prompt says where a line is typed; the lines behind a bare `$` are run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from saddlepoint import Pipeline
from saddlepoint.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "cluster.md", ROOT / "docs" / "gpu.md"]
BIN = Path(sys.executable).parent
PLACES = {"", "head", "node", "laptop", "gpu"}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            yield page.name, block


def lines() -> list[tuple[str, str, str]]:
    """Page, place and command of every line with a prompt."""
    found = []
    for page, block in blocks("console"):
        for line in block.splitlines():
            place, prompt, command = line.partition("$ ")
            assert prompt, f"{page}: {line!r} has no prompt"
            assert place in PLACES, f"{page}: {line!r} is typed nowhere"
            found.append((page, place, command))
    return found


def calls(program: str) -> list[list[str]]:
    """The arguments of every call of the program, also of one that another sends elsewhere."""
    return [call for _, _, command in lines() for call in called(command, program)]


def called(command: str, program: str) -> Iterator[list[str]]:
    words = shlex.split(command)
    for at, word in enumerate(words):
        if " " in word:  # what ssh is to say to a shell
            yield from called(word, program)
        elif word == program or word.endswith(f"/{program}"):
            starts = at == 0 or words[at - 1] in ("&&", "--", "|")
            if starts:
                end = next((i for i in range(at, len(words)) if words[i] in ("&&", "|", ">")), len(words))
                yield words[at + 1 : end]


def parse_saddle(arguments: list[str]) -> None:
    """As the command line itself would, short of doing it."""
    command = typer.main.get_command(app)
    context = command.make_context("saddle", list(arguments))
    name, child, rest = command.resolve_command(context, arguments)
    child.make_context(name, rest, parent=context)


def test_the_pages_say_much():
    """So that no test here passes for want of anything to look at."""
    assert len(calls("saddle")) >= 12
    assert len(calls("kubectl")) >= 10
    assert len(calls("ray")) >= 6


@pytest.mark.parametrize("arguments", calls("saddle"), ids=" ".join)
def test_every_saddle_command_is_one(arguments):
    parse_saddle(arguments)


class Taken(Exception):
    """What a command would have worked with."""


@pytest.mark.parametrize(
    "arguments", [call for call in calls("saddle") if set(call) & {"plan", "train", "submit", "--parity"}], ids=" ".join
)
def test_every_pipeline_can_be_had_as_the_page_wants_it(arguments, monkeypatch):
    """With all the options that change it: short of the work itself, the command is run."""

    def take(pipeline: Pipeline, *_: object, **__: object) -> None:
        raise Taken(pipeline)

    for work in ("plan.plan", "train.train_here", "submit.submit", "parity.parity"):
        monkeypatch.setattr(f"saddlepoint.workflows.{work}", take)
    with pytest.raises(Taken) as taken:
        app(arguments, standalone_mode=False)
    assert taken.value.args[0].name in arguments


@pytest.mark.parametrize("wrong", [["submit", "digits-wgan", "--adress", "x"], ["jbs"], ["logs"]], ids=" ".join)
def test_a_wrong_saddle_command_is_seen(wrong):
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        parse_saddle(wrong)


def test_every_ray_and_mlflow_option_is_one():
    import mlflow.cli
    import ray.scripts.scripts

    for program, cli in (("ray", ray.scripts.scripts.cli), ("mlflow", mlflow.cli.cli)):
        for name, *arguments in calls(program):
            cli.commands[name].make_context(name, arguments)


def test_the_tracking_server_answers_to_the_names_that_it_is_called_by():
    import mlflow.cli
    from mlflow.server.security_utils import get_default_allowed_hosts, is_allowed_host_header

    (server,) = [arguments for name, *arguments in calls("mlflow") if name == "server"]
    options = mlflow.cli.cli.commands["server"].make_context("server", server).params
    hosts = options["allowed_hosts"].split(",")
    page, settings = ((ROOT / path).read_text() for path in ("docs/cluster.md", "deploy/node.env"))
    called = set(re.findall(r"MLFLOW_TRACKING_URI=http://(\d[\w.:]+)", page + settings))
    assert called == {f"{options['host']}:{options['port']}"}
    for name in (*called, "localhost:5000", "127.0.0.1:5000"):  # from the machine itself, or through ssh
        assert is_allowed_host_header(hosts, name)
    assert not is_allowed_host_header(hosts, "evil.example:5000")
    assert not any(is_allowed_host_header(get_default_allowed_hosts(), name) for name in called)  # hence the option


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_every_kubectl_option_is_one():
    for arguments in calls("kubectl"):
        verb = arguments[: 3 if arguments[0] == "create" else 1]
        text = subprocess.run(["kubectl", *verb, "--help"], capture_output=True, text=True, check=True).stdout
        text += subprocess.run(["kubectl", "options"], capture_output=True, text=True, check=True).stdout
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        for option in (word.partition("=")[0] for word in own if word.startswith("-")):
            assert re.search(rf"(^|\s){option}[=,\s]", text), f"kubectl {' '.join(verb)} has no {option}"


def test_every_file_is_there():
    for page, _, command in lines():
        for path in re.findall(r"(?<![\w/.])(?:deploy|docs)/[\w./-]+", command):
            assert (ROOT / path).exists(), f"{page}: {path}"
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_pipeline_section_is_valid():
    """The pages' YAML and the options in their tables, each laid over a pipeline that is whole."""
    whole = yaml.safe_load(Pipeline.load("digits-wgan").yaml())
    sections = [(page, yaml.safe_load(block)) for page, block in blocks("yaml")]
    for page in PAGES:
        sections += [
            (page.name, yaml.safe_load(text))
            for text in re.findall(r"`((?:resources|data): \{.*?\})`", page.read_text())
        ]
    assert len(sections) >= 4
    for page, section in sections:
        assert section, page
        Pipeline.parse(whole | section)
    options = re.findall(r"^\| `(\w+: \w+)` \|", (ROOT / "docs" / "gpu.md").read_text(), re.MULTILINE)
    assert len(options) == 6
    for option in options:
        Pipeline.parse(whole | {"training": whole["training"] | yaml.safe_load(option.replace("K", "2"))})


def test_what_runs_anywhere_runs(tmp_path):
    """Each in an empty folder, with an empty home and nothing set."""
    path = f"{BIN}:{os.environ['PATH']}"
    here = [command for _, place, command in lines() if not place]
    assert len(here) >= 3
    begun = {}
    for number, command in enumerate(here):
        if command.startswith("kubectl") and shutil.which("kubectl") is None:
            continue
        home = tmp_path / str(number)
        home.mkdir()
        (home / "deploy").symlink_to(ROOT / "deploy")
        settings = {"PATH": path, "HOME": str(home), "SADDLE_CACHE": str(home)}
        begun[command] = subprocess.Popen(
            command, shell=True, cwd=home, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    for command, process in begun.items():
        said, _ = process.communicate(timeout=300)
        wrong = [line.split()[0] for line in said.splitlines() if "NOT OK" in line]
        full = command == "saddle doctor" and wrong == ["disk"]  # of the machine, not of the page, is that said
        assert process.returncode == (1 if full else 0), f"{command}\n{said}"
    (token,) = tmp_path.glob("*/.ray/auth_token")
    assert re.fullmatch(r"\w{32,}", token.read_text())
    assert token.stat().st_mode & 0o077 == 0
