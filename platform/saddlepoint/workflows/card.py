"""The model card: all that one must know of a registered generator to trust it, and to make it again.

`card.json` lies beside the generator in the registry; the version's description says the same for people. It is
written when the version is made: what was decided about it later stands in the version's tags and in the alias's
history (`rollback.py`).
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..spec import Pipeline
from ..tracking.registry import weights_hash
from ..training.setup import Setup
from .confirm import Candidate, Confirmation
from .evidence import Estimate, Scores, estimates
from .provenance import provenance
from .sweep import Sweep

CARD = "card.json"
FORMAT = 1
NEEDED = ("pipeline", "weights", "data", "machine", "code", "generator")  # to make the model again


def model_card(
    sweep: Sweep, confirmation: Confirmation, winner: Candidate, place: int, draws: list[Scores], run_id: str
) -> dict[str, Any]:
    """Plain data.

    Args:
        place: which of the winner's seeds is promoted.
        draws: what that seed's generator scored in each of its draws.
        run_id: of its training in the tracking store.

    Keys:
        pipeline: the whole training, seed included: `Pipeline.parse` reads it back; of a schedule its last piece.
        schedule: of a population, the round at which each piece of the training ends, and its values; otherwise [].
        generator, configuration: scores of these weights over draws, of the configuration over seeds, each as mean,
            standard deviation and interval.
        machine: where it was registered; on a cluster, the workers' may be another.
    """
    pipeline = sweep.pipeline.with_values(winner.values).model_copy(update={"seed": winner.seeds[place]})
    dataset = sweep.shared.dataset
    return {
        "format": FORMAT,
        "sweep": {"name": sweep.folder.name, "id": sweep.tracker.sweep, "run_id": sweep.tracker.run_id("sweep")},
        "run": {"key": winner.keys[place], "run_id": run_id},
        "weights": weights_hash(winner.folders[place]),
        "values": winner.values,
        "schedule": winner.schedule,
        "pipeline": pipeline.content(),
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "protocol": sweep.shared.scorer.protocol,
        "confidence": confirmation.confidence,
        "bounds": confirmation.bounds,
        "floor": confirmation.floor,
        "generator": _plain(estimates(draws, confirmation.confidence)),
        "configuration": _plain(winner.estimates),
        "seeds": winner.seeds,
        "failures": winner.failures,
        "code": {name.removeprefix("saddle."): value for name, value in provenance().items()},
        "machine": machine(sweep.shared),
    }


def machine(shared: Setup) -> dict[str, str]:
    """What bits depend on, beside the code: equal ones here give equal weights."""
    cuda = shared.device.type == "cuda"
    return {
        "cpu": _cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(shared.device) if cuda else "cpu",
        "torch": torch.__version__,
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Raises UserError for a generator without one, or of another format."""
    path = folder / CARD
    try:
        card: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"model: {folder} holds no {CARD}; only what `saddle promote` registers has one") from error
    except ValueError as error:
        raise UserError(f"model: {path} is no JSON: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"model: {path} is no card of format {FORMAT}, the one that this version reads")
    if missing := [key for key in NEEDED if not card.get(key)]:
        raise UserError(f"model: {path} is not whole: {missing[0]} is missing")
    return card


def pipeline_of(card: Mapping[str, Any]) -> Pipeline:
    """The training that the card describes; its seed is that of the training."""
    return Pipeline.parse(card["pipeline"], CARD)


def markdown(card: Mapping[str, Any], verdict: str) -> str:
    """The card for people, short: what it scores, how it was chosen, what makes it again."""
    seeds, protocol, code = card["seeds"], card["protocol"], card["code"]
    failed = f", {len(card['failures'])} more failed" if card["failures"] else ""
    draws = next(iter(card["generator"].values()))["count"]
    rows = [
        f"| {name} | {Estimate(**scores)} | {Estimate(**card['configuration'][name])} | {_floor(card, name)} |"
        for name, scores in card["generator"].items()
    ]
    lines = [
        f"**Promotion**: {verdict}.",
        "",
        f"| | this generator, {draws} draws | its configuration, {len(seeds)} seeds{failed} | real data |",
        "|---|---|---|---|",
        *rows,
        "",
        f"± is half of the {100 * card['confidence']:g} % interval of the mean, "
        f"n = {protocol['samples']} samples a draw, against held-out data."
        + (f" Bounds: {', '.join(card['bounds'])}." if card["bounds"] else ""),
        "",
        *(f"- **Values until round {until}**: {_listed(values)}" for until, values in card["schedule"][:-1]),
        f"- **Values**: {_listed(card['values'])}",
        f"- **Training**: {card['sweep']['name']}, {card['run']['key']}, seed {card['pipeline']['seed']}; "
        "`saddle reproduce` repeats it",
        f"- **Data**: {card['data']['name']}, fingerprint `{card['data']['fingerprint']}`",
        f"- **Extractor**: {protocol['features']}, `{protocol['features_hash']}`",
        f"- **Code**: saddlepoint {code['version']}, commit `{code['commit']}`, Python {code['python']}, "
        f"{code['packages']}",
        f"- **Machine**: {card['machine']['device']}, {card['machine']['cpu']}, {card['machine']['instructions']}",
        f"- **Weights**: sha256 `{card['weights']}`",
    ]
    return "\n".join(lines)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _plain(scores: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: asdict(estimate) for name, estimate in scores.items()}


def _floor(card: Mapping[str, Any], name: str) -> str:
    return f"{card['floor'][name]:.4g}" if name in card["floor"] else ""


def _cpu() -> str:
    """The model of the processor as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
