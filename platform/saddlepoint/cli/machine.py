"""Commands about this machine and its servers."""

import os
from typing import Annotated

import typer

from ..errors import UserError
from .common import Json, Set, load, print_json

app = typer.Typer()


@app.command()
def ui(port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000) -> None:
    """The MLflow UI on the tracking store of this folder, on loopback; and how to look into a ledger."""
    from .. import console
    from ..tracking.ui import command

    arguments, environment = command(None, port)
    console.say(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    console.say("A sweep's ledger: optuna-dashboard sqlite:///sweeps/NAME/ledger.db (pip install optuna-dashboard)")
    os.execvpe(arguments[0], arguments, environment)


@app.command()
def doctor(
    parity: Annotated[
        str | None,
        typer.Option("--parity", metavar="PIPELINE", help="Plays it eager and with each option for speed instead."),
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Of --parity; 20 if not given.")] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Versions, GPUs, Ray, tracking store, disk: each with a plain verdict. With --parity: losses side by side."""
    from .. import console

    if parity is not None:
        _parity(parity, rounds or 20, set_, json)
        return
    for option, given in (("--set", set_), ("--rounds", rounds)):
        if given:
            raise UserError(f"{option}: goes with --parity PIPELINE")
    from ..workflows.doctor import doctor

    checks = doctor()
    if json:
        print_json(checks)
    else:
        console.out.print(console.doctor_table(checks))
    if not all(check.good for check in checks):
        raise SystemExit(1)


def _parity(pipeline: str, rounds: int, overrides: list[str] | None, json: bool) -> None:
    from .. import console
    from ..workflows.parity import parity

    loaded = load(pipeline, overrides, None)
    with console.out.status("eager") as shown:
        found = parity(loaded, rounds, shown.update)
    if json:
        print_json(found)
    else:
        console.out.print(console.parity_table(loaded.name, rounds, found))
