"""A table with its published rows and its checks: for the terminal, and for the docs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table as RichTable
from trainings import Measured

ABSENT = ""


@dataclass(frozen=True)
class Column:
    head: str
    metric: str
    form: str = ".2f"
    factor: float = 1.0  # 100 for a share in per cent

    def show(self, mean: float, spread: float | None = None) -> str:
        if math.isnan(mean):
            return "diverged"
        shown = f"{mean * self.factor:{self.form}}"
        return shown if spread is None else f"{shown} ± {spread * self.factor:{self.form}}"


@dataclass(frozen=True)
class Row:
    name: str
    cells: Sequence[str]
    seconds: str = ""


@dataclass(frozen=True)
class Check:
    what: str
    value: str
    passed: bool

    @property
    def verdict(self) -> str:
        return "PASS" if self.passed else "FAIL"


def at_least(what: str, value: float, aim: float, form: str = ".2f") -> Check:
    """NaN fails."""
    return Check(f"{what}: at least {aim:{form}}", f"{value:{form}}", value >= aim)


def at_most(what: str, value: float, aim: float, form: str = ".2f") -> Check:
    return Check(f"{what}: at most {aim:{form}}", f"{value:{form}}", value <= aim)


@dataclass
class Table:
    title: str
    columns: Sequence[Column]
    about: str  # the protocol
    ours: list[Row] = field(default_factory=list)
    others: list[Row] = field(default_factory=list)  # published, and what a plain loop gives
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0  # of the wall clock

    def add(self, name: str, measured: Measured) -> None:
        """A row of ours, as mean and standard deviation over the seeds."""
        known = measured.metrics
        cells = [
            column.show(measured.mean(column.metric), measured.spread(column.metric))
            if column.metric in known or not known
            else ABSENT
            for column in self.columns
        ]
        self.ours.append(Row(name, cells, f"{measured.seconds:.0f}"))

    def add_scores(self, name: str, scores: Mapping[str, float]) -> None:
        """A row that nobody trains: a floor, a baseline."""
        self.ours.append(Row(name, [c.show(scores[c.metric]) if c.metric in scores else ABSENT for c in self.columns]))

    def quote(self, name: str, *cells: str) -> None:
        """A row of others, in the order of the columns; what they do not report may be left out at the end."""
        self.others.append(Row(name, [*cells, *[ABSENT] * (len(self.columns) - len(cells))]))

    def print(self, console: Console) -> None:
        shown = RichTable(title=self.title, title_justify="left", box=None, pad_edge=False)
        shown.add_column()
        for column in self.columns:
            shown.add_column(column.head, justify="right")
        shown.add_column("s each", justify="right")
        for row in self.ours:
            shown.add_row(row.name, *row.cells, row.seconds)
        shown.add_section()
        for row in self.others:
            shown.add_row(row.name, *row.cells, row.seconds, style="dim")
        console.print(shown)
        for check in self.checks:
            console.print(f"  {check.verdict}  {check.what}: {check.value}", style="" if check.passed else "bold red")
        console.print(f"  {self.seconds:.0f} s\n")

    def markdown(self) -> str:
        heads = ["", *(column.head for column in self.columns), "s each"]
        lines = [f"## {self.title}", "", self.about, "", _cells(heads), "|---|" + "---:|" * (len(heads) - 1)]
        lines += [_cells([row.name, *row.cells, row.seconds]) for row in self.ours]
        lines += [_cells([f"*{row.name}*", *row.cells, row.seconds]) for row in self.others]
        lines += ["", "| aim | measured | |", "|---|---:|---|"]
        lines += [_cells([check.what, check.value, check.verdict]) for check in self.checks]
        return "\n".join([*lines, "", f"{self.seconds:.0f} seconds."])


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
