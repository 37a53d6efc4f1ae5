"""Charts of a sweep as plain plotly figures: {"data": [...], "layout": {...}}, ready for JSON."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from saddlepoint.metrics.catalogue import Metric
from saddlepoint.metrics.objective import Objective
from saddlepoint.search.importance import Importance
from saddlepoint.search.ink import (
    BEST,
    MARK,
    SCALE,
    STATES,
    Figure,
    across,
    axis_of,
    label,
    last_seen,
    log_ticks,
    number,
    sheet,
    spans,
    text_of,
    tick,
    titled,
    told,
)
from saddlepoint.search.records import Outcome, TrialRecord
from saddlepoint.space import Choice, Fixed, Parameter, Space

OUTSIDE = "complete, outside the bounds"


def running_best(records: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Those that were the best feasible trial so far, by number."""
    best: list[TrialRecord] = []
    for record in records:
        if record.feasible and (not best or objective.is_better(record.scores, best[-1].scores)):
            best.append(record)
    return best


def best_so_far(records: Sequence[TrialRecord], objective: Objective, marks: Mapping[str, float]) -> Figure:
    """The objective over trials (one or more), the running best as a line; `marks` are lines across, by name."""
    metric = objective.metric
    steps = running_best(records, objective)
    line = {
        "x": [r.number for r in steps] + [r.number for r in records[-1:] if steps],
        "y": [r.scores[metric.name] for r in [*steps, *steps[-1:]]],
        "mode": "lines",
        "line": {"shape": "hv", "width": 2.5, "color": BEST},
        "name": "best so far",
        "hoverinfo": "skip",
    }
    figure = _scatter(records, metric, lambda record: record.number, [line], list(marks.values()))
    layout = figure["layout"]
    layout["xaxis"] = axis_of("trial", range=[-0.6, records[-1].number + 0.6])
    layout["shapes"] = [across(value) for value in marks.values()]
    layout["annotations"] += [label(name, value, layout["yaxis"]) for name, value in marks.items()]
    return figure


def pareto(records: Sequence[TrialRecord], objective: Objective, front: Sequence[TrialRecord]) -> Figure:
    """Of two metrics: each trial's last values, and the front, best by the first metric first, as steps."""
    first, second = objective.metrics
    shown = [r for r in records if last_seen(r, first) is not None and last_seen(r, second) is not None]
    # What lies beyond the front in both metrics is dominated: its steps go by way of the worse value of each pair.
    line = {
        "x": [r.scores[first.name] for r in front],
        "y": [r.scores[second.name] for r in front],
        "mode": "lines",
        "line": {"shape": "hv" if first.better == "lower" else "vh", "width": 2.5, "color": BEST},
        "name": "Pareto front",
        "hoverinfo": "skip",
    }
    figure = _scatter(shown, second, lambda record: last_seen(record, first), [line])
    values = [value for r in shown if (value := last_seen(r, first)) is not None]
    figure["layout"]["xaxis"] = axis_of(titled(first), values)
    return figure


def learning_curves(records: Sequence[TrialRecord], metric: Metric, rungs: Sequence[int], best: int | None) -> Figure:
    """A metric over rounds, one line for each trial; the lines of one state are one trace, however many trials."""
    traces = []
    values: list[float] = []
    for state, (colour, _) in STATES.items():
        chosen = [r for r in records if r.state == state and r.number != best and r.curves.get(metric.name)]
        if chosen:
            x, y, text = _polyline(chosen, metric)
            values += [value for value in y if value is not None]
            dim = state not in (Outcome.COMPLETE, "running")
            mode = {"mode": "lines+markers", "marker": {"size": 4}}
            line = {"color": colour, "width": 1 if dim else 1.3}
            traces.append(
                {"x": x, "y": y, "text": text, "name": str(state), "line": line, "opacity": 0.45 if dim else 0.7}
                | {"connectgaps": False, "hovertemplate": "%{text}<extra></extra>"}
                | mode
            )
    for record in records:
        if record.number == best and record.curves.get(metric.name):
            x, y, text = _polyline([record], metric)
            values += [value for value in y if value is not None]
            traces.append(
                {"x": x, "y": y, "text": text, "name": f"best, trial {best}", "mode": "lines+markers"}
                | {"line": {"color": BEST, "width": 3}, "marker": {"size": 7}}
                | {"hovertemplate": "%{text}<extra></extra>"}
            )
    layout = sheet(xaxis=axis_of("round", rangemode="tozero"), yaxis=axis_of(titled(metric), values))
    layout["shapes"] = [
        {"type": "line", "x0": rung, "x1": rung, "yref": "paper", "y0": 0, "y1": 1}
        | {"line": {"color": MARK, "width": 1, "dash": "dot"}}
        for rung in rungs
    ]
    layout["annotations"] = [
        {"x": rung, "y": 1, "yref": "paper", "yanchor": "bottom", "text": f"rung {rung}", "showarrow": False}
        for rung in rungs
    ]
    return {"data": traces, "layout": layout}


def importances(found: Importance) -> Figure:
    names = list(reversed(found.ped_anova))
    bars = [("PED-ANOVA", found.ped_anova, BEST)]
    if found.fanova:
        bars.insert(0, ("fANOVA", found.fanova, MARK))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [text_of(each) for each in names],
            "x": [100 * shares[each] if each in shares else None for each in names],
            "texttemplate": "%{x:.0f} %",
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.1f} %<extra>" + name + "</extra>",
            "marker": {"color": colour},
        }
        for name, shares, colour in bars
    ]
    layout = sheet(
        xaxis=axis_of("share, %", range=[0, 115 * max(max(shares.values()) for _, shares, _ in bars)]),
        yaxis={"automargin": True, "fixedrange": True},
    )
    layout |= {"bargap": 0.35, "height": 90 + 46 * len(names)}
    layout["legend"] |= {"traceorder": "reversed"}
    return {"data": traces, "layout": layout}


def parallel(
    records: Sequence[TrialRecord], space: Space, objective: Objective, places: Mapping[int, int]
) -> Figure | None:
    """Parallel coordinates of the trials that have a place, coloured by it, the best drawn last. None: none scored."""
    chosen = sorted((r for r in records if r.number in places), key=lambda r: -places[r.number])
    if all(last_seen(r, objective.metric) is None for r in chosen):
        return None
    axes = [
        _dimension(name, parameter, [r.values.get(name) for r in chosen])
        for name, parameter in space.parameters.items()
        if not isinstance(parameter, Fixed)
    ]
    for metric in objective.metrics:
        seen = [last_seen(r, metric) for r in chosen]
        axes.append(_range(metric.name, seen, [v for v in seen if v is not None], "none"))
    worst = max(places.values()) or 1
    bar = {"title": {"text": "place"}, "tickvals": [0, worst], "ticktext": ["best", "last"], "thickness": 12}
    line = {"color": [places[r.number] for r in chosen], "colorscale": SCALE, "cmin": 0, "cmax": worst}
    trace = {
        "type": "parcoords",
        "dimensions": axes,
        "line": line | {"showscale": True, "colorbar": bar},
        "labelside": "top",
        "unselected": {"line": {"opacity": 0.05}},
    }
    return {"data": [trace], "layout": sheet(height=440, margin={"l": 70, "r": 40, "t": 60, "b": 30})}


def slices(records: Sequence[TrialRecord], space: Space, objective: Objective) -> dict[str, Figure]:
    """The objective's first metric against each searched parameter that a trial has, by name."""
    drawn = {
        name: _slice(records, name, parameter, objective.metric)
        for name, parameter in space.parameters.items()
        if not isinstance(parameter, Fixed)
    }
    return {name: figure for name, figure in drawn.items() if figure["data"]}


def intervals(
    names: Sequence[str],
    means: Sequence[float],
    within: Sequence[tuple[float, float] | None],
    runs: Sequence[Sequence[float]],
    metric: Metric,
    floor: float | None,
) -> Figure:
    """Dot and interval for each named configuration, best at the top; `runs`: the score of each seed, small beside.

    An interval is None where one seed alone was scored.
    """
    labels = [text_of(name) for name in names]
    ends = [(mean, mean) if span is None else span for mean, span in zip(means, within, strict=True)]
    reach = {
        "type": "data",
        "symmetric": False,
        "array": [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
        "arrayminus": [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
        "thickness": 2,
        "width": 6,
    }
    hover = [
        f"{name}<br>{number(mean)} within {number(low)} to {number(high)}"
        for name, mean, (low, high) in zip(labels, means, ends, strict=True)
    ]
    traces = [
        {"x": [score for scores in runs for score in scores], "mode": "markers", "name": "each seed"}
        | {"y": [name for name, scores in zip(labels, runs, strict=True) for _ in scores]}
        | {"marker": {"color": MARK, "size": 8, "symbol": "line-ns-open", "line": {"width": 2}}}
        | {"hovertemplate": "%{x:.4g}<extra>%{y}</extra>"},
        {"x": list(means), "y": labels, "mode": "markers", "name": "mean and its interval", "error_x": reach}
        | {"marker": {"color": BEST, "size": 11}, "text": hover, "hovertemplate": "%{text}<extra></extra>"},
    ]
    seen = [value for each in (*ends, *runs) for value in each]
    axis = axis_of(titled(metric), [*seen, *([] if floor is None else [floor])])
    layout = sheet(xaxis=axis, yaxis={"autorange": "reversed", "automargin": True, "fixedrange": True})
    layout["height"] = 120 + 46 * len(names)
    if floor is not None:
        at = math.log10(floor) if axis.get("type") == "log" else floor
        layout["shapes"] = [
            {"type": "line", "x0": floor, "x1": floor, "yref": "paper", "y0": 0, "y1": 1}
            | {"line": {"color": MARK, "width": 1.5, "dash": "dash"}}
        ]
        layout["annotations"] = [
            {"x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "text": "floor: real data", "showarrow": False}
        ]
    return {"data": traces, "layout": layout}


def _scatter(
    records: Sequence[TrialRecord],
    metric: Metric,
    x: Callable[[TrialRecord], Any],
    lines: Sequence[Figure] = (),
    also: Sequence[float] = (),
) -> Figure:
    """A metric against `x`, a trace for each state; a trial without a value stands in a strip above.

    `also`: other values that the axis shall hold.
    """
    traces = [line for line in lines if line["x"]]
    values: list[float] = []
    strip: list[Figure] = []
    for name, chosen, marker in _by_state(records):
        seen = [(record, last_seen(record, metric)) for record in chosen]
        values += [value for _, value in seen if value is not None]
        for into, part in ((traces, [e for e in seen if e[1] is not None]), (strip, [e for e in seen if e[1] is None])):
            if part:
                into.append(
                    {"x": [x(record) for record, _ in part], "y": [0.5 if y is None else y for _, y in part]}
                    | {"text": [told(record) for record, _ in part], "hovertemplate": "%{text}<extra></extra>"}
                    | {"mode": "markers", "marker": marker, "name": name, "legendgroup": name}
                    | {"showlegend": into is traces or all(value is None for _, value in seen)}
                )
    layout = sheet(yaxis=axis_of(titled(metric), [*values, *also]))
    if strip:
        hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "ticks": "", "showline": False}
        above = {"range": [0, 1], "fixedrange": True, **hidden}
        layout["annotations"] = [
            {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
            | {"text": "ended without a value", "showarrow": False}
        ]
        if traces:
            layout["yaxis"]["domain"] = [0, 0.86]
            layout["yaxis2"] = above | {"domain": [0.9, 1]}
            strip = [trace | {"yaxis": "y2"} for trace in strip]
        else:
            layout |= {"yaxis": above, "height": 170}
    return {"data": traces + strip, "layout": layout}


def _slice(records: Sequence[TrialRecord], name: str, parameter: Parameter, metric: Metric) -> Figure:
    having = [record for record in records if name in record.values]
    if isinstance(parameter, Choice):
        choices = parameter.choices
        # Aside by a fixed little each, the golden ratio's multiples, so that trials with one value are told apart.
        figure = _scatter(
            having,
            metric,
            lambda record: choices.index(record.values[name]) + 0.5 * (record.number * 0.618034 % 1 - 0.5),
        )
        axis = axis_of(name, range=[-0.5, len(choices) - 0.5], tickvals=list(range(len(choices))))
        axis["ticktext"] = [text_of(number(choice)) for choice in choices]
    else:
        figure = _scatter(having, metric, lambda record: record.values[name])
        assert not isinstance(parameter, Fixed)  # not searched
        axis = axis_of(name, [parameter.low, parameter.high], log=parameter.log)
    layout = figure["layout"]
    layout |= {"xaxis": axis, "height": min(270, layout["height"]), "showlegend": False}
    layout["margin"] |= {"t": 26, "r": 14}
    return figure


def _by_state(records: Sequence[TrialRecord]) -> Iterable[tuple[str, list[TrialRecord], Figure]]:
    for state, (colour, symbol) in STATES.items():
        of_state = [record for record in records if record.state == state]
        marker = {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 0}}
        if state == Outcome.COMPLETE:
            yield str(state), [r for r in of_state if r.feasible], marker
            hollow = marker | {"symbol": "circle-open", "line": {"width": 2}}
            yield OUTSIDE, [r for r in of_state if not r.feasible], hollow
        elif state == Outcome.PRUNED:
            yield "pruned, where it was stopped", of_state, marker | {"opacity": 0.7, "size": 8}
        else:
            yield str(state), of_state, marker | ({"line": {"width": 2}} if "open" in symbol else {})


def _polyline(
    records: Sequence[TrialRecord], metric: Metric
) -> tuple[list[int | None], list[float | None], list[str | None]]:
    """The curves of many trials as one, with a gap behind each."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for record in records:
        for step, value in sorted(record.curves[metric.name].items()):
            x.append(step)
            y.append(value if math.isfinite(value) else None)
            text.append(f"trial {record.number}, {record.state}<br>{metric.name} {number(value)} at round {step}")
        for gapped in (x, y, text):
            gapped.append(None)
    return x, y, text


def _dimension(name: str, parameter: Parameter, values: Sequence[Any]) -> Figure:
    if isinstance(parameter, Choice):
        choices = parameter.choices
        absent = [] if all(value in choices for value in values) else [-1]
        return {
            "label": text_of(name),
            "values": [choices.index(value) if value in choices else -1 for value in values],
            "tickvals": [*absent, *range(len(choices))],
            "ticktext": [*("absent" for _ in absent), *(text_of(number(choice)) for choice in choices)],
            "range": [min([0, *absent]) - 0.2, len(choices) - 0.8],
        }
    assert not isinstance(parameter, Fixed)  # not searched
    return _range(name, values, [parameter.low, parameter.high], "absent", log=parameter.log)


def _range(name: str, values: Sequence[Any], ends: Sequence[float], without: str, *, log: bool | None = None) -> Figure:
    """A numeric axis that holds `ends` and all values; those that are None go to a tick of their own below."""
    known = [*ends, *(value for value in values if value is not None)] or [0.0]
    log = spans(known) if log is None else log
    scaled: Callable[[float], float] = math.log10 if log else float
    low, high = scaled(min(known)), scaled(max(known))
    high = high if high > low else low + 1.0
    below = low - 0.12 * (high - low)
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    if log:
        between = (math.log10(value) for value in log_ticks(10**low, 10**high))
        ticks = [low, *(at for at in between if low + 0.15 < at < high - 0.15), high]
    texts = [tick(10**at if log else at) for at in ticks]
    absent = None in values
    return {
        "label": text_of(name),
        "values": [below if value is None else scaled(value) for value in values],
        "range": [below if absent else low, high],
        "tickvals": [*([below] if absent else []), *ticks],
        "ticktext": [*([without] if absent else []), *texts],
    }
