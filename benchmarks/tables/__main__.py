"""The tables of docs/tables.md: five games beside published numbers and beside what real data scores; `make tables`.

    python benchmarks/tables [TABLE ...]       all of them, or some: toy, ring, digits, inverted

Every row is trained anew on three seeds, through the public Python API, on one thread each. The aims are checked, and
the exit code is 1 if one is missed. The page is written when all four tables are done.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import digits
import inverted
import ring
import torch
import toy
from report import Table
from rich.console import Console
from trainings import SEEDS, Workers, workers

import saddlepoint
from saddlepoint.files import write_text

TABLES: Mapping[str, Callable[[Workers], Table]] = {
    "toy": toy.table,
    "ring": ring.table,
    "digits": digits.table,
    "inverted": inverted.table,
}
PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("tables", nargs="*", metavar="TABLE", choices=[*TABLES, []], help=", ".join(TABLES))
    arguments.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="trainings at once")
    asked = arguments.parse_args()
    names = asked.tables or list(TABLES)

    torch.set_num_threads(1)
    console, start, made = Console(highlight=False, width=150), time.perf_counter(), []
    with workers(asked.processes, console) as at_work:
        for name in names:
            began = time.perf_counter()
            table = TABLES[name](at_work)
            table.seconds = time.perf_counter() - began
            table.print(console)
            made.append(table)
    seconds = time.perf_counter() - start
    if set(names) == set(TABLES):
        write_text(PAGE, page(made, seconds, asked.processes))
        console.print(f"{PAGE}: {seconds / 60:.1f} minutes in all")
    return int(not all(check.passed for table in made for check in table.checks))


def page(tables: list[Table], seconds: float, processes: int) -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, saddlepoint {saddlepoint.__version__}"
    seeds = ", ".join(map(str, SEEDS))
    head = f"""# Five games, beside published numbers

`make tables` trains every row of ours anew and writes this page. {date.today()}: {processes} trainings at once, one
thread each, {hardware()}, no GPU, {versions}; {seconds / 60:.1f} minutes in all. Values are means ± standard
deviations over the seeds {seeds}; "s each" is the wall time of one training with its evaluations. Rows in italics
are others'. Rows that lose stay."""
    return "\n\n".join([head, *(table.markdown() for table in tables)]) + "\n"


def hardware() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
