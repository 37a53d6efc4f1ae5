"""Commands about this machine and its servers."""

import os
from typing import Annotated

import typer

from .common import Json, print_json

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
def doctor(json: Json = False) -> None:
    """Versions, GPUs, Ray, tracking store, disk: each with a plain verdict."""
    from .. import console
    from ..workflows.doctor import doctor

    checks = doctor()
    if json:
        print_json(checks)
    else:
        console.out.print(console.doctor_table(checks))
    if not all(check.good for check in checks):
        raise SystemExit(1)
