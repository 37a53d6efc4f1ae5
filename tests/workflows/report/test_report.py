"""The report's page holds what the ledger holds: its trials, its charts, its verdict."""

import dataclasses
import re
from typing import Any

import pytest

from saddlepoint.search.records import Outcome
from saddlepoint.workflows.report import report
from saddlepoint.workflows.report.facts import decisions, duration, effort, gather, verdict

from .conftest import ROUNDS

HOSTILE = "ValueError: </td><script>alert('1')</script> & <img src=http://evil.example/x>"
Scores = dict[str, float]


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


def test_the_page_needs_nothing_but_itself(swept, read, tmp_path):
    swept(17, mixed)  # enough to say what matters
    shown = read(report("toy", root=tmp_path).path)
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


@pytest.mark.parametrize(
    ("seconds", "said"), [(12.34, "12.3 s"), (600, "10.0 min"), (9000, "2.5 h"), (259_200, "3.0 days")]
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said
