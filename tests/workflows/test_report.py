"""The report's page: read back as a browser would, and held against the ledger."""

import base64
import dataclasses
import io
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from saddlepoint.cli import report as cli_report
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.registry import RegisteredVersion
from saddlepoint.workflows.confirm import CONFIRMATION, Candidate, Confirmation
from saddlepoint.workflows.evidence import estimates
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.report import Report, report, tracked
from saddlepoint.workflows.report import page as page_room
from saddlepoint.workflows.report.facts import decisions, duration, effort, gather, verdict
from saddlepoint.workflows.sweep import open_ledger

HOSTILE = "ValueError: </td><script>alert('1')</script> & <img src=http://evil.example/x>"
ROUNDS = (4, 8, 12)
Scores = dict[str, float]
Play = Callable[[int, dict[str, Any], int], Scores | str]


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
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Report, Page]]:
    """The report of the sweep, written and read; without the megabytes of plotly.js."""
    monkeypatch.setattr(page_room, "get_plotlyjs", lambda: "plotly")

    def read() -> tuple[Report, Page]:
        written = report("toy", root=tmp_path)
        return written, Page(written.path.read_text())

    return read


def falling(number: int, values: dict[str, Any], at: int) -> Scores:
    return {"emd": (number * 7 % 5 + 1.25) * (1 + 4 / at)}


def mixed(number: int, values: dict[str, Any], at: int) -> Scores | str:
    if number % 5 == 3:
        return f"the loss is nan at round {number}"
    return HOSTILE if number == 6 else falling(number, values, at)


def test_the_table_of_trials_is_the_ledger(swept, page):
    _, folder, ledger = swept(14, mixed, search={"pruner": "successive_halving", "eta": 2})
    written, shown = page()
    records = ledger.trials()
    rows = shown.table("trial")
    assert [int(row["trial"]) for row in rows] == [r.number for r in records]
    assert [row["state"] for row in rows] == [r.state for r in records]
    assert {"pruned", "complete", "diverged", "failed"} == {r.state for r in records}  # or this shows little
    for row, r in zip(rows, records, strict=True):
        last = r.value if r.value is not None else next(reversed(r.intermediate.values()), None)
        assert row["emd"] == ("" if last is None else f"{last:.3g}")
        assert int(row["rounds"]) == max(r.intermediate, default=0)
        assert float(row["clip"]) == pytest.approx(r.values["clip"], rel=5e-3)
        assert row["why"] == (r.reason or "")
    assert written.trials == {state: sum(r.state == state for r in records) for state in written.trials}
    assert sum(written.trials.values()) == len(records)
    best = ledger.best()[0]
    assert written.best == best.number
    assert f"Best so far: emd {best.value:.3g}, trial {best.number}" in shown.words
    assert next(row["trial"] for row in rows if row["place"] == "1") == str(best.number)
    assert written.path == folder.path / "report.html"
    assert "saddle sweep --resume toy" in shown.words


def test_the_charts_hold_the_ledgers_numbers(swept, page):
    *_, ledger = swept(12, falling)
    figures = page()[1].figures
    complete = {r.number: r.value for r in ledger.trials()}
    dots = next(t for t in figures["progress"]["data"] if t["name"] == "complete")
    assert dict(zip(dots["x"], dots["y"], strict=True)) == complete
    curves = [t for t in figures["curves emd"]["data"]]
    drawn = [(x, y) for t in curves for x, y in zip(t["x"], t["y"], strict=True) if x is not None]
    assert sorted(drawn) == sorted(p for r in ledger.trials() for p in r.intermediate.items())
    clip = next(t for t in figures["slice clip"]["data"])
    assert sorted(clip["x"]) == sorted(r.values["clip"] for r in ledger.trials())
    assert {name for name in figures if name.startswith("slice ")} == {
        "slice clip",
        "slice n_critic",
        "slice training.batch_size",
    }


def test_rungs_and_rounds_add_up(swept, page):
    *_, ledger = swept(12, mixed, search={"pruner": "successive_halving", "eta": 2})
    written, shown = page()
    records = ledger.trials()
    assert written.rounds_spent == ledger.spent_rounds()
    pruned = [max(r.intermediate) for r in records if r.state == "pruned"]
    assert written.rounds_saved == sum(12 - at for at in pruned) > 0
    rows = shown.table("rung, rounds")
    assert [row["rung, rounds"] for row in rows] == ["4", "8", "12"]
    assert [int(row["stopped there"] or 0) for row in rows] == [pruned.count(4), pruned.count(8), 0]
    reached = [max(r.intermediate, default=0) for r in records]
    assert [int(row["reached it"]) for row in rows] == [sum(r >= at for r in reached) for at in ROUNDS]
    share = written.rounds_saved / (written.rounds_saved + written.rounds_spent)
    assert f"saved {100 * share:.0f} %" in shown.words


def test_a_rung_between_two_evaluations_stops_at_the_next(swept):
    """Rung 5, evaluated at 4, 8, 12: who is stopped there has played 8 rounds."""
    pipeline, _, ledger = swept(9, falling, search={"pruner": "successive_halving", "eta": 3, "min_rounds": 5})
    rungs = decisions(pipeline, pipeline.search)
    assert rungs == [5]
    pruned = [r for r in ledger.trials() if r.state == "pruned"]
    assert {max(r.intermediate) for r in pruned} == {8}
    (rung,) = effort(ledger.trials(), 12, rungs).rungs
    assert (rung.reached, rung.stopped) == (9, len(pruned))


def test_failures_stand_by_class_and_those_that_differ_in_numbers_together(swept, page):
    swept(14, mixed)
    rows = page()[1].table("class")
    assert [(row["class"], row["trials"], row["which"]) for row in rows] == [
        ("diverged", "3", "3, 8, 13"),
        ("failed", "1", "6"),
    ]
    assert rows[0]["reason"] == "the loss is nan at round 3"


def test_what_a_user_wrote_is_text_and_never_markup(swept, page):
    swept(7, mixed)
    written, shown = page()
    assert shown.table("class")[-1]["reason"] == HOSTILE
    assert shown.tags.count("script") == 3  # plotly.js, the figures, the page's own
    assert "img" not in shown.tags
    assert "alert('1')</script>" not in written.path.read_text()


def test_the_page_needs_nothing_but_itself(swept, tmp_path):
    swept(17, mixed)  # enough to say what matters
    shown = Page(report("toy", root=tmp_path).path.read_text())
    assert all(reference.startswith("data:") for reference in shown.references)
    own = "".join(shown.scripts[1:])
    assert not re.search(r"https?://(?!evil)|@import|url\(", own)
    assert "importance" in shown.figures
    assert "link" not in shown.tags
    assert "iframe" not in shown.tags
    assert "Plotly.react" in shown.scripts[2]
    assert len(shown.scripts[0]) > 3e6  # plotly.js itself, once


@pytest.mark.parametrize(
    ("n", "play", "said"),
    [
        (0, falling, "No trial has begun."),
        (1, falling, "Best so far: emd 3, trial 0, with the published defaults"),  # (0 + 1.25) * (1 + 4/12) = 1.67
        (4, lambda *_: "the loss is nan", "No trial is complete yet."),
    ],
)
def test_a_sweep_of_little_has_a_page_too(swept, page, n, play, said):
    swept(n, play if n != 1 else lambda number, values, at: {"emd": 3.0})
    written, shown = page()
    assert written.verdict.startswith(said)
    assert said in shown.words
    assert sum(written.trials.values()) == n
    assert ("table" in shown.tags) == (n > 0)


def test_a_sweep_that_runs_can_be_read_and_goes_on_untouched(swept, page):
    _, folder, ledger = swept(3, falling)
    running = ledger.next(9)
    assert running is not None
    ledger.report(running.number, 4, {"emd": 2.0})
    before = (folder.path / "ledger.db").stat().st_mtime_ns, sorted(p.name for p in folder.path.iterdir())
    written, shown = page()
    assert written.trials == {"complete": 3, "running": 1}
    assert shown.table("trial")[3]["emd"] == "2"
    after = {p.name for p in folder.path.iterdir()} - {"report.html", "ledger.db-wal", "ledger.db-shm"}
    assert after == set(before[1]) - {"ledger.db-wal", "ledger.db-shm"}
    assert (folder.path / "ledger.db").stat().st_mtime_ns == before[0]
    assert not ledger.report(running.number, 8, {"emd": 1.0})
    ledger.tell(running.number, Outcome.COMPLETE, {"emd": 1.0})
    assert ledger.trials()[3].intermediate == {4: 2.0, 8: 1.0}


def test_two_metrics_show_their_front(swept, page):
    points = [(5.0, 3.0), (3.0, 5.0), (4.0, 4.0), (6.0, 6.0), (5.0, 5.0)]
    *_, ledger = swept(
        5,
        lambda number, values, at: dict(zip(("emd", "one_nn"), points[number], strict=True)),
        objective={"metric": "emd", "second": "one_nn", "samples": 100},
    )
    written, shown = page()
    assert "3 trials lie on the Pareto front; best by emd is trial 1, emd 3 and one_nn 5" in shown.words
    front = next(t for t in shown.figures["progress"]["data"] if t["name"] == "Pareto front")
    assert list(zip(front["x"], front["y"], strict=True)) == [(3.0, 5.0), (4.0, 4.0), (5.0, 3.0)]
    assert [row["place"] for row in shown.table("trial")] == ["1", "1", "1", "3", "2"]
    assert written.best == ledger.front()[0].number
    assert {"curves emd", "curves one_nn"} <= set(shown.figures)


def test_outside_the_bounds_nothing_is_best(swept, page):
    swept(
        3,
        lambda number, values, at: {"emd": 1.0 + number, "recall": 0.1 * number},
        objective={"metric": "emd", "constraints": {"recall": {"at_least": 0.5}}, "samples": 100},
    )
    written, shown = page()
    assert written.best is None
    assert "No complete trial keeps recall >= 0.5; nearest is trial 2 with emd 3, recall 0.2." in shown.words
    assert "subject to recall >= 0.5" in shown.words
    assert {row["state"] for row in shown.table("trial")} == {"complete, outside the bounds"}
    assert {t["name"] for t in shown.figures["progress"]["data"]} == {"complete, outside the bounds"}


@pytest.mark.parametrize(
    ("scores", "floor", "said"),
    [
        ((8.0, 4.0), {"emd": 3.0}, "the published defaults 8; the floor, which is real data, 3: 80 % of the way"),
        ((8.0, 4.0), {}, "trial 1; the published defaults 8."),
        ((4.0, 8.0), {"emd": 3.0}, "trial 0, with the published defaults; the floor, which is real data, 3."),
        (("nan", 4.0), {}, "trial 1; the published defaults diverged."),
    ],
)
def test_the_verdict_says_how_far_it_is_from_the_defaults_to_the_floor(swept, scores, floor, said):
    def play(number: int, values: dict[str, Any], at: int) -> Scores | str:
        return "nan" if scores[number] == "nan" else {"emd": scores[number]}

    pipeline, _, ledger = swept(2, play)
    assert said in verdict(gather(ledger.trials(), pipeline, pipeline.search), floor)


def test_trials_outside_a_changed_space_are_listed_and_no_more(swept):
    pipeline, _, ledger = swept(4, lambda number, values, at: {"emd": 1.0 + number})
    first, *rest = ledger.trials()
    facts = gather([dataclasses.replace(first, inside=False), *rest], pipeline, pipeline.search)
    assert facts.best == rest[0]
    assert 0 not in facts.places
    assert facts.counts == {"complete": 4}
    assert facts.effort.spent == 48


def confirmation(folder: Folder) -> Confirmation:
    def candidate(name: str, *emds: float, failures: tuple[str, ...] = ()) -> Candidate:
        scores = [{"emd": emd, "recall": 0.5} for emd in emds]
        return Candidate(
            name=name,
            values={"clip": 0.1},
            seeds=list(range(len(emds))),
            scores=scores,
            estimates=estimates(scores, 0.9),
            feasible=True,
            folders=[folder.path / name for _ in emds],
            keys=[],
            failures=list(failures),
        )

    result = Confirmation(
        metric="emd",
        second=None,
        seeds=3,
        draws=5,
        confidence=0.9,
        bounds=[],
        floor={"emd": 0.5},
        candidates=[
            candidate("trial <7>", 1.0, 2.0, 3.0),
            candidate("published defaults", 5.0, failures=(HOSTILE,)),
            candidate("trial 9", failures=("no",)),
        ],
    )
    (folder.path / CONFIRMATION).write_text(json.dumps(dataclasses.asdict(result), default=str))
    return result


def test_the_confirmation_is_shown_with_its_intervals(swept, page):
    _, folder, _ = swept(2, falling)
    result = confirmation(folder)
    shown = page()[1]
    rows = shown.table("configuration")
    assert rows[0]["configuration"] == "floor: real data"
    assert rows[0]["emd"] == "0.5"
    # 2 ± t(0.95, 2 degrees) * 1 / sqrt(3) = 2.920 / 1.732
    assert (rows[1]["configuration"], rows[1]["emd"], rows[1]["seeds"]) == ("trial <7>", "2 ± 1.69", "3")
    assert (rows[2]["configuration"], rows[2]["emd"], rows[2]["seeds"]) == ("published defaults", "5", "1")
    assert HOSTILE in shown.words
    dots = next(t for t in shown.figures["confirmed emd"]["data"] if "error_x" in t)
    assert dots["x"] == [2.0, 5.0]
    assert dots["error_x"]["array"] == pytest.approx([result.candidates[0].estimates["emd"].half, 0])
    assert dots["y"] == ["trial &lt;7&gt;", "published defaults"]


@pytest.mark.parametrize("content", ["", "{}", '{"candidates": [{"name": 1}]}', '{"candidates": 3}'])
def test_a_confirmation_that_cannot_be_read_costs_a_line_and_no_page(swept, page, content):
    _, folder, _ = swept(2, falling)
    (folder.path / CONFIRMATION).write_text(content)
    assert "confirmation.json cannot be read" in page()[1].words


class Store:
    """Stands for the tracking store."""

    uri = "sqlite:///x"

    def metrics(self, key: str) -> dict[str, float]:
        return {"floor/emd": 0.25, "confirm/emd": 3.0}

    def pictures(self, key: str, names: Any, at_most: int) -> dict[int, bytes]:
        if key != "trial-0001":
            return {}
        content = io.BytesIO()
        Image.new("L", (2000, 1000), 7).save(content, "PNG")
        return {4: content.getvalue(), 1200: content.getvalue()}


def test_pictures_floor_and_champion_come_from_the_store(swept, page, monkeypatch):
    swept(2, lambda number, values, at: {"emd": 2.0 - number}, promote={"model": "toy"})
    tags = {"saddle.name": "another", "saddle.promotion": "emd 1 beats 2 of <version> 6"}
    bearer = RegisteredVersion(
        name="toy", version=7, run_id=None, aliases=("champion",), tags=tags, description="", created=0
    )
    monkeypatch.setattr(tracked.Gallery, "of", lambda *_: Store())
    monkeypatch.setattr(tracked, "champion", lambda *_: bearer)
    shown = page()[1]
    assert "the published defaults 2; the floor, which is real data, 0.25" in shown.words
    assert "toy version 7 is champion, from the sweep another: emd 1 beats 2 of <version> 6." in shown.words
    assert "round 4" in shown.words
    assert "round 1,200" in shown.words
    pictures = [Image.open(io.BytesIO(base64.b64decode(r.split(",")[1]))) for r in shown.references]
    assert [p.size for p in pictures] == [(512, 256), (512, 256)]


def test_a_store_that_does_not_answer_holds_nothing_up(swept, tmp_path, monkeypatch):
    pipeline, folder, _ = swept(1, falling)

    class Silent(Store):
        def pictures(self, *_: Any) -> dict[int, bytes]:
            time.sleep(30)
            return {}

    monkeypatch.setattr(tracked.Gallery, "of", lambda *_: Silent())
    found = tracked.recall(folder, pipeline, [0], seconds=0.2)
    assert found.trouble == "the tracking store did not answer within 0.2 s"
    assert found.floor == {"emd": 0.25}  # what came before is kept


def test_the_command_prints_where_the_page_is(swept, tmp_path, monkeypatch, refusal):
    _, folder, _ = swept(2, falling)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").symlink_to(tmp_path)
    done = CliRunner().invoke(cli_report.app, ["toy", "--out", "x.html", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["path"] == "x.html"
    assert json.loads(done.stdout)["trials"] == {"complete": 2}
    assert Page((tmp_path / "x.html").read_text()).table("trial")
    assert not (folder.path / "report.html").exists()
    assert "toy" in refusal(lambda: report("toi", root=tmp_path))


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.34, "12.3 s"), (600, "10.0 min"), (9000, "2.5 h"), (259_200, "3.0 days")]
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said
