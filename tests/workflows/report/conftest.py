"""A sweep that nothing was trained for, and its page, read back as a browser would."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.spec import Pipeline
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.report import Report, report
from saddlepoint.workflows.report import page as page_room
from saddlepoint.workflows.sweep import open_ledger

ROUNDS = (4, 8, 12)
Play = Callable[[int, dict[str, Any], int], dict[str, float] | str]


class Page(HTMLParser):
    """Tables as rows of texts, all text outside scripts, what is referred to, and the scripts' contents."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.words, self.references, self.scripts = "", [], []
        self.tags: list[str] = []
        self._inside, self._cell = "", False
        self.feed(text)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        match tag:
            case "script" | "style":
                self._inside = tag
                self.scripts += [""] if tag == "script" else []
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")
                self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        if tag in ("td", "th"):
            self.words += " "
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.words += data
            if self._cell:
                self.tables[-1][-1][-1] += data

    def table(self, head: str) -> list[dict[str, str]]:
        """The rows of the table whose first column bears that name."""
        for names, *rows in self.tables:
            names = [" ".join(name.split()) for name in names]
            if names[0] == head:
                return [dict(zip(names, (" ".join(cell.split()) for cell in row), strict=False)) for row in rows]
        raise AssertionError(f"no table that begins with {head!r}")

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.scripts[1])


@pytest.fixture
def swept(tmp_path: Path, toy_content: dict[str, Any]) -> Callable[..., tuple[Pipeline, Folder, Ledger]]:
    """`swept(5, play, objective={...})`: a sweep of 5 trials; `play(number, values, round)` gives its scores, or why
    it diverged. Nothing is trained."""

    def sweep(n: int, play: Play, **changes: Any) -> tuple[Pipeline, Folder, Ledger]:
        toy_content["search"] |= {"trials": 30, "min_rounds": 4, "pruner": "none", "sampler": "random"} | changes.pop(
            "search", {}
        )
        pipeline = Pipeline.parse(toy_content | changes)
        folder = Folder.of(pipeline, tmp_path)
        folder.begin(pipeline)
        ledger = open_ledger(pipeline, folder)
        while suggestion := ledger.next(n):
            number = suggestion.number
            for at in ROUNDS:
                scores = play(number, suggestion.values, at)
                if isinstance(scores, str):
                    outcome = Outcome.FAILED if scores.startswith("ValueError") else Outcome.DIVERGED
                    ledger.tell(number, outcome, reason=scores)
                    break
                ledger.note(number, seconds=at / 2)
                if ledger.report(number, at, scores):
                    ledger.tell(number, Outcome.PRUNED, reason=f"{scores} at round {at}")
                    break
            else:
                ledger.tell(number, Outcome.COMPLETE, scores)
        return pipeline, folder, ledger

    return sweep


@pytest.fixture
def read() -> Callable[[Path], Page]:
    """`read(path)`: a page as it lies on the disk."""
    return lambda path: Page(path.read_text())


@pytest.fixture
def page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Page]
) -> Callable[[], tuple[Report, Page]]:
    """The report of the sweep, written and read; without the megabytes of plotly.js."""
    monkeypatch.setattr(page_room, "get_plotlyjs", lambda: "plotly")

    def write() -> tuple[Report, Page]:
        written = report("toy", root=tmp_path)
        return written, read(written.path)

    return write
