"""deploy/ray-up.yaml, and the lines of docs/cluster.md that start Ray by hand: Ray takes them, a bare shell too."""

import copy
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "cluster.md").read_text()
RAY_UP = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())


def checked_by_ray(config: dict[str, Any]) -> None:
    """As `ray up` does before it does anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(config)
    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_up_takes_its_file():
    checked_by_ray(RAY_UP | {"cluster_synced_files": []})
    for key, value in RAY_UP.items():
        wrong = {other: content for other, content in RAY_UP.items() if other != key} | {"cluster_synced_files": []}
        with pytest.raises(Exception, match=re.escape(f"'{key}s' was unexpected") + "|required"):
            checked_by_ray(wrong | {f"{key}s": value})
        if key != "cluster_name":
            with pytest.raises(Exception, match=r"is not of type|is not valid"):
                checked_by_ray(wrong | {key: 7})


def test_ray_ups_commands_are_there():
    import ray.scripts.scripts

    for remote, local in RAY_UP["file_mounts"].items():
        assert remote.startswith("~/")
        assert local.startswith("~/") or (ROOT / local).exists()
    commands = [line for key, lines in RAY_UP.items() if key.endswith("_commands") for line in lines]
    for path in re.findall(r"~/saddlepoint/([\w./-]+)", " ".join(commands)):
        assert (ROOT / path).exists(), path
    called = re.findall(r"(?:~/saddle/bin/|&& )(ray|pip) (\w+)([^&]*)", " ".join(f"{c} &" for c in commands))
    assert sorted(f"{program} {name}" for program, name, _ in called) == [
        *("pip install", "pip install"), *("ray start", "ray start"), *("ray stop", "ray stop")
    ]  # fmt: skip
    for program, name, options in called:
        if program == "ray":
            words = [re.sub(r"\$\w+", "192.0.2.10", word) for word in shlex.split(options)]
            ray.scripts.scripts.cli.commands[name].make_context(name, words)


STARTS = [
    *RAY_UP["head_start_ray_commands"],
    *RAY_UP["worker_start_ray_commands"],
    *re.findall(r"^\w+\$ (.*)", PAGE, re.M),
]


@pytest.mark.parametrize("command", [command for command in STARTS if re.search(r"\bray start\b", command)])
def test_a_node_that_is_started_from_a_bare_shell_runs_jobs(command, tmp_path):
    """A job is `exec python ...`, in the environment of `ray start`: here a `ray` that says what it was given."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "saddle"], check=True)
    (tmp_path / "saddle/bin/ray").write_text('#!/bin/sh\necho "$@"\ncommand -v python\nenv\n')
    (tmp_path / "saddle/bin/ray").chmod(0o755)
    for place in (tmp_path / "saddlepoint", tmp_path):  # where `ray up` puts it, and where a person stands
        place.mkdir(exist_ok=True)
        (place / "deploy").symlink_to(DEPLOY)
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAY_HEAD_IP": "192.0.2.10"}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    options, python, *settings = done.stdout.splitlines()
    assert options.startswith("start ")
    assert Path(python) == tmp_path / "saddle/bin/python"
    assert {"RAY_AUTH_MODE=token", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1"} <= set(settings)


def test_there_are_four_ways_to_start_a_node():
    assert sum("ray start" in command for command in STARTS) == 4
