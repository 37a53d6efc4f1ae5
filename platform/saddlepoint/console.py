"""What a person sees in the terminal: live progress where there is a terminal, tables at the end, nothing else."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .search.ink import number
from .search.records import TrialRecord
from .spec import Pipeline
from .tracking.query import TrackedRun
from .training.loop import Report
from .workflows.confirm import Candidate, Confirmation
from .workflows.doctor import Check
from .workflows.evidence import Estimate
from .workflows.parity import Parity
from .workflows.plan import Plan
from .workflows.reproduce import Reproduction
from .workflows.trials import Row, Trials

WIDTH = 150  # where there is no terminal to ask
SHOWN = 24  # rows of the live table: the newest
COLOUR = {"running": "cyan", "complete": "green", "pruned": "yellow", "diverged": "red", "failed": "red"}

as_it_is = partial(Console, highlight=False, markup=False, emoji=False)  # a path may be called [bold], or :smile:
out = as_it_is()
if not out.is_terminal:
    out = as_it_is(width=WIDTH)


def plain_table(title: str | None = None) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")


def trials_table(rows: Sequence[Row | TrialRecord], metric: str, title: str | None = None) -> Table:
    """One line a trial, one column a parameter. `rows` are live ones, or the ledger's records."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    table = plain_table(title)
    table.add_column("trial", justify="right")
    table.add_column("state")
    for column in ("round", metric, *names):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        if isinstance(row, TrialRecord):
            seen = row.value if row.value is not None else next(reversed(row.intermediate.values()), None)
            reached = max(row.intermediate, default=0)
        else:
            seen, reached = row.objective, row.round
        table.add_row(
            str(row.number),
            Text(row.state, COLOUR.get(row.state, "")),
            str(reached),
            "" if seen is None else number(seen),
            *(number(row.values.get(name, "")) for name in names),
            _why(row),
        )
    return table


def _why(row: Row | TrialRecord) -> str:
    """What a person wants to know beside the state: why it ended early, and what it survived."""
    notes = row.attrs if isinstance(row, TrialRecord) else row.notes
    said = [] if row.state == "complete" or not row.reason else [row.reason]
    if isinstance(row, TrialRecord) and row.state == "complete" and not row.feasible:
        said.append("violates a bound")
    if lost := notes.get("lost"):
        said.append(f"lost its worker {lost} times" if lost > 1 else "lost its worker once")
        if rounds := notes.get("went_on"):
            said[-1] += f", heard of again at round {', '.join(map(str, rounds))}"
    if "memory" in notes and row.state != "out of memory":
        said.append("ran out of memory once")
    return "; ".join(said)


@contextmanager
def watching(trials: Trials) -> Iterator[None]:
    """A live table of the trials while they run; where stdout is no terminal, nothing, or with SADDLE_PROGRESS=lines
    (as a job of a cluster has it) a line for each event."""
    if not out.is_terminal:
        with _telling(trials) if os.environ.get("SADDLE_PROGRESS") == "lines" else nullcontext():
            yield
        return

    def draw() -> Group:
        rows = [trials.rows[key] for key in sorted(trials.rows)]
        metric = trials.objective.metric.name
        scores = [row.objective for row in rows if row.state == "complete" and row.objective is not None]
        best = min(scores, key=trials.objective.metric.badness, default=None)
        ended = sum(row.state != "running" for row in rows)
        what = {"trial": "trials", "confirm": "retrainings on fresh seeds"}[trials.kind]
        head = f"{trials.folder.name}: {ended} {what} ended here"
        head += "" if best is None else f", best {metric} {number(best)}"
        trouble = trials.tracker.trouble
        note = [Text(f"tracking waits: {trouble}", "yellow")] if trouble else []
        note += [Text(trials.over, "yellow")] if trials.over else []
        return Group(trials_table(rows[-SHOWN:], metric, head), *note)

    with Live(get_renderable=draw, console=out, refresh_per_second=2, transient=True):
        yield


@contextmanager
def _telling(trials: Trials) -> Iterator[None]:
    """A line for each trial that begins, is lost, or ends: for a log, which nobody can draw anew."""
    over, told = threading.Event(), dict[int, tuple[str, str]]()

    def tell() -> None:
        for index in sorted(list(trials.rows)):
            row = trials.rows[index]
            if told.get(index) != (row.state, row.reason):
                told[index] = row.state, row.reason
                score = "" if row.objective is None else f", {trials.objective.metric.name} {number(row.objective)}"
                why = f": {row.reason}" if row.reason else ""
                say(f"{trials.key(index)} {row.state} at round {row.round}{score}{why}")

    def go_on_telling() -> None:
        while not over.wait(1.0):
            tell()

    thread = threading.Thread(target=go_on_telling, name="saddlepoint-telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell()


METRICS_SHOWN = (
    *("recall", "coverage", "one_nn", "class_accuracy", "modes", "high_quality", "reverse_kl"),
    *("log_likelihood", "elbo", "aggregate_kl", "paired_l1", "cycle_l1"),
)


def confirmation_table(result: Confirmation) -> Table:
    """The evidence: each configuration's scores over fresh seeds, with the floor as the first line."""
    scored = {name for candidate in result.candidates for score in candidate.scores for name in score}
    judged = [result.metric, *filter(None, [result.second]), *(bound.split()[0] for bound in result.bounds)]
    columns = list(dict.fromkeys([*judged, *(metric for metric in METRICS_SHOWN if metric in scored)]))
    names = list(result.candidates[0].values)
    table = plain_table(
        f"Confirmed on {result.seeds} fresh seeds, {result.draws} draws each, against the held-out half: "
        f"mean ± standard deviation over seeds; {100 * result.confidence:g} % interval of the mean"
    )
    table.add_column("configuration")
    for column in (result.metric, "interval", *columns[1:], "seeds", *names):
        table.add_column(column, justify="right")
    reasons = {candidate.name: _short_of(candidate, result) for candidate in result.candidates}
    if any(reasons.values()):
        table.add_column("why not", overflow="fold")
    floor = [number(result.floor[name]) if name in result.floor else "" for name in columns]
    table.add_row("floor: real data", floor[0], "", *floor[1:])
    for candidate in result.candidates:
        scores = [spelled(candidate.estimates.get(name)) for name in columns]
        values = (number(candidate.values.get(name, "")) for name in names)
        seeds = f"{len(candidate.scores)} of {result.seeds}"
        why = [reasons[candidate.name]] if any(reasons.values()) else []
        interval = between(candidate.estimates.get(result.metric))
        table.add_row(candidate.name, scores[0], interval, *scores[1:], seeds, *values, *why)
    return table


def _short_of(candidate: Candidate, result: Confirmation) -> str:
    """What speaks against a configuration: bounds that its means do not keep, seeds that have no score."""
    outside = [f"outside {', '.join(result.bounds)}"] if candidate.scores and not candidate.feasible else []
    return "; ".join([*outside, *dict.fromkeys(candidate.failures)])


def scores_table(title: str, columns: dict[str, dict[str, float]]) -> Table:
    """Metrics down, one column for each named set of scores."""
    table = plain_table(title)
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in next(iter(columns.values())):
        table.add_row(metric, *(number(scores.get(metric, "")) for scores in columns.values()))
    return table


def rows_table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def plan_table(plan: Plan) -> Table:
    weights = ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items())
    others = len(plan.structures) - 1
    rungs = ", ".join(f"{count} reach round {rung}" for rung, count in plan.rungs.items())
    cost = f"about {plan.expected_seconds / 60:.1f} minutes"
    cost += f" and {plan.gpu_hours:.1f} GPU-hours" if plan.gpu_hours else ""
    rows = [
        ("data", plan.data),
        ("weights", weights),
        ("structures", f"{others} more in the search space, each built and played" if others else "one"),
        ("sweep", f"{plan.trials} trials of {plan.rounds} rounds, {plan.at_once} at once on {plan.device}"),
        *([("population", f"{plan.members} members, {plan.generations} generations")] if plan.members else []),
        *([("rungs", f"{rungs}; about {plan.expected_rounds:,} rounds in all")] if rungs else []),
        ("confirm", f"{plan.retrainings} retrainings at full length"),
        ("a round", f"{plan.round_milliseconds:.2f} ms; an evaluation {plan.evaluation_seconds:.2f} s"),
        ("a trial", f"{plan.trial_seconds:.0f} s at full length"),
        ("together", f"{cost}; at most {plan.longest_seconds / 60:.1f} minutes, if nothing is pruned"),
        ("memory", f"{plan.memory_megabytes:,.0f} MB for one trial's process"),
        ("disk", f"{plan.disk_megabytes:,.1f} MB at most"),
        *(("warning", warning) for warning in plan.warnings),
    ]
    return rows_table(f"{plan.name}: nothing was started", rows)


def doctor_table(checks: Iterable[Check]) -> Table:
    return rows_table("", [(check.name, f"{'ok' if check.good else 'NOT OK'}: {check.verdict}") for check in checks])


def parity_table(name: str, rounds: int, found: list[Parity]) -> Table:
    table = plain_table(f"{name}: {rounds} rounds with each option, from the same weights on the same batches")
    table.add_column("option")
    players = list(found[0].losses)
    for column in (*(f"loss of {player}" for player in players), "off in round 1", f"within {rounds}", "ms a round"):
        table.add_column(column, justify="right")
    for each in found:
        losses = [number(each.losses[player]) for player in players] if each.losses else [""] * len(players)
        off = ["" if value is None else f"{value:.1e}" for value in (each.first, each.worst)]
        took = each.note if each.milliseconds is None else f"{each.milliseconds:.2f}"
        table.add_row(each.option, *losses, *off, took)
    return table


def runs_table(sweeps: Iterable[TrackedRun]) -> Table:
    table = plain_table()
    for column in ("sweep", "status", "started", "experiment", "run id"):
        table.add_column(column)
    for run in sweeps:
        started = f"{datetime.fromtimestamp(run.start / 1e3):%Y-%m-%d %H:%M}"
        table.add_row(run.name, run.status, started, run.experiment, run.run_id)
    return table


@contextmanager
def progress(pipeline: Pipeline) -> Iterator[Callable[[Report], None]]:
    """A bar over the rounds of one training; nothing where stdout is no terminal."""
    metric = pipeline.objective.metric
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(pipeline.name, total=pipeline.training.rounds)

        def advance(report: Report) -> None:
            bar.update(
                task,
                completed=report.round,
                description=f"{pipeline.name}  {metric} {number(report.metrics[metric])}",
            )

        yield advance


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over things of which so many are done and so many there are; nothing where stdout is no terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(message: str) -> None:
    out.print(message, soft_wrap=True)


def spelled(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    mean, sd = number(estimate.mean), estimate.sd
    return mean if sd is None else f"{mean} ± {sd:.2g}" if sd < 100 else f"{mean} ± {sd:.0f}"


def between(estimate: Estimate | None) -> str:
    """The interval; one value alone has none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def reproduced(done: Reproduction) -> str:
    if done.equal:
        return f"equal: the weights are the registered ones, bit for bit (sha256 {done.weights})"
    why = "; ".join(done.differences) or "nothing that is known to matter is another here"
    return f"not equal: sha256 {done.weights} here, {done.recorded} registered ({why})"
