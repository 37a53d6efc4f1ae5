"""What the charts are drawn with: colours, symbols, axes, texts and the empty sheet.

Inks are mid-tones that read on white and on black, on transparent ground; the page sets what text and grid need. One
colour and one symbol for each state, from Okabe & Ito's palette, which the colour-blind can tell apart.
"""

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from saddlepoint.metrics.catalogue import Metric
from saddlepoint.search.records import Outcome, TrialRecord

Figure = dict[str, Any]

STATES = {  # in the order of legends: colour, symbol
    Outcome.COMPLETE: ("#3a8dc9", "circle"),
    Outcome.PRUNED: ("#8d939c", "triangle-down"),
    Outcome.DIVERGED: ("#d5682a", "x"),
    Outcome.OUT_OF_MEMORY: ("#d79a1e", "square"),
    Outcome.FAILED: ("#b8639b", "diamond"),
    "running": ("#1f9e7a", "circle-open-dot"),
    "waiting": ("#8d939c", "circle-open"),
    Outcome.DUPLICATE: ("#8d939c", "line-ew-open"),
}
BEST, MARK = "#3a8dc9", "#8d939c"
DECADE = 20  # largest over smallest value from which on an axis is logarithmic
SCALE = [[0, "#e0a526"], [0.25, "#7cb46b"], [0.5, "#3a8dc9"], [1, "#8d939c"]]  # the best trials first


def number(value: Any) -> str:
    """As one reads it: three digits that count."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}" if abs(value) < 1 else f"{value:.0f}"


def last_seen(record: TrialRecord, metric: Metric) -> float | None:
    """A metric of a complete trial, or what another last reported of it; None where that is no finite number."""
    curve = record.curves.get(metric.name, {})
    last = curve[max(curve)] if curve else None
    value = record.scores.get(metric.name) if record.state == Outcome.COMPLETE else last
    return value if value is not None and math.isfinite(value) else None


def told(record: TrialRecord) -> str:
    """What one reads beside the pointer."""
    at = f" at round {max(record.intermediate)}" if record.intermediate and record.state != Outcome.COMPLETE else ""
    lines = [f"<b>trial {record.number}</b>, {record.state}{at}"]
    scores = record.scores or {name: curve[max(curve)] for name, curve in record.curves.items() if curve}
    lines += [f"{name} {number(value)}" for name, value in scores.items()]
    lines += [f"{text_of(name)} = {text_of(number(value))}" for name, value in record.values.items()]
    if record.reason and record.state != Outcome.PRUNED:
        lines.append(text_of(record.reason if len(record.reason) < 80 else record.reason[:79] + "…"))
    return "<br>".join(lines)


def text_of(value: Any) -> str:
    """Safe within plotly's texts, which take a few tags, links among them."""
    return html.escape(str(value), quote=False)


def titled(metric: Metric) -> str:
    return metric.name + {"lower": ", lower is better", "higher": ", higher is better", "none": ""}[metric.better]


def spans(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > DECADE


def axis_of(title: str, values: Sequence[float] = (), *, log: bool | None = None, **more: Any) -> Figure:
    """log: None: where the values span decades."""
    axis: Figure = {"title": {"text": text_of(title), "standoff": 8}, "automargin": True, "zeroline": False, **more}
    if spans(values) if log is None else log:
        ticks = log_ticks(min(values), max(values))
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [tick(value) for value in ticks]}
    return axis


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around low to high; where these are few, 2 and 5 times each too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 300 else (1,)
    return [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]


def tick(value: float) -> str:
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].replace("+", ""), f"{float(f'{value:.3g}'):g}")


def sheet(**more: Any) -> Figure:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "height": 400,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "annotations": [],
        **more,
    }


def across(value: float) -> Figure:
    line = {"color": MARK, "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def label(name: str, value: float, axis: Figure) -> Figure:
    at = math.log10(value) if axis.get("type") == "log" else value
    return {
        "text": f"{text_of(name)} {number(value)}",
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": at,
        "yanchor": "bottom",
        "showarrow": False,
    }
