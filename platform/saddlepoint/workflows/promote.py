"""From evidence to the registry: the winner's generator becomes a version, and the alias moves only if it is better.

The reigning champion is scored again beside the challenger, on the same data, with the same extractor and on the same
draws: two numbers from two protocols are never compared. Those draws are not the ones that chose the challenger.
"""

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from ..errors import SaddleError, UserError
from ..generator import Generator, load_generator
from ..metrics.objective import Objective
from ..remote import at_hand
from ..spec import ConfirmSpec
from ..tracking import registry
from ..tracking.registry import RegisteredVersion
from ..tracking.store import KEY_TAG, SWEEP_TAG
from ..training.setup import Setup
from .card import CARD, markdown, model_card
from .confirm import Candidate, Confirmation, broken
from .evidence import Estimate, drawn, judged, means, remembered
from .provenance import protocol_tags
from .rollback import STORY_TAG, history, move, taken_back
from .sweep import Sweep


@dataclass(frozen=True)
class Promotion:
    model: str
    version: int
    alias: str
    moved: bool
    reason: str  # one sentence: why the alias moved, or why not

    @property
    def uri(self) -> str:
        return f"models:/{self.model}@{self.alias}"


@dataclass(frozen=True)
class Verdict:
    better: bool
    reason: str
    compared: dict[str, Any] | None = None  # the numbers behind it, where two were scored side by side


def promote(sweep: Sweep, confirmation: Confirmation, *, force: bool = False) -> Promotion:
    """Registers the confirmed winner (once for a sweep and run) and settles the alias. Raises SaddleError if
    the pipeline names no model or the registry cannot be reached.

    Of the winner's seeds the one that is best by its mean over draws is promoted.
    """
    target, tracker = sweep.pipeline.promote, sweep.tracker
    if target is None:
        raise UserError(
            f"promote: is missing in the pipeline {sweep.pipeline.name!r}; it names the model and its alias"
        )
    winner, objective = confirmation.winner, sweep.pipeline.objective.built()
    place = min(range(len(winner.scores)), key=lambda i: objective.key(winner.scores[i]))
    folder, key = winner.folders[place], winner.keys[place]
    run_id = tracker.run_id(key) if tracker.drain(timeout=120) else None
    if run_id is None:
        raise SaddleError(f"the tracking store does not answer ({tracker.trouble}); "
                          f"repeat later: saddle promote {sweep.folder.name}")  # fmt: skip
    identity = {SWEEP_TAG: tracker.sweep, KEY_TAG: key, registry.WEIGHTS_TAG: registry.weights_hash(folder)}
    champion = registry.champion(tracker.uri, target.model, target.alias)
    if champion is not None and _bears(champion, identity):
        return Promotion(target.model, champion.version, target.alias, False, f"it is the {target.alias} already")
    past = history(tracker.uri, target.model, target.alias, champion.version if champion else None)
    before = next((v for v in registry.models(tracker.uri, target.model) if _bears(v, identity)), None)
    undone = taken_back(past, before.version) if before else None
    if undone is not None:
        verdict = Verdict(False, f"it was {undone.why} at {undone.at}; `saddle promote --force` promotes it again")
    else:
        verdict = _judge(load_generator(folder, sweep.shared.device), champion, identity, sweep, objective)
    moved, reason = verdict.better or force, verdict.reason
    if moved and not verdict.better:
        reason += "; forced"
    draws = remembered(folder, sweep.shared, judged(sweep.shared, objective), confirmation.draws)
    card = model_card(sweep, confirmation, winner, place, draws, run_id) | {"compared": verdict.compared}
    with at_hand(folder) as package:
        version = registry.log_generator(
            tracker.uri,
            run_id,
            package,
            name=target.model,
            tags={**_tags(sweep, confirmation, winner), **identity, STORY_TAG: reason},
            description=markdown(card, reason),
            files={CARD: json.dumps(card, indent=2)},
        )
    if moved:
        move(
            tracker.uri,
            target.model,
            target.alias,
            version,
            before=champion.version if champion else None,
            how="promoted" if verdict.better else "forced",
            why=reason,
        )
    return Promotion(target.model, version, target.alias, moved, reason)


def _bears(version: RegisteredVersion, identity: dict[str, str]) -> bool:
    return all(version.tags.get(tag) == value for tag, value in identity.items())


def _judge(
    challenger: Generator,
    champion: RegisteredVersion | None,
    identity: dict[str, str],
    sweep: Sweep,
    objective: Objective,
) -> Verdict:
    """Whether the alias shall move: the challenger is within the bounds, and better than what reigns."""
    shared, wanted = sweep.shared, sweep.pipeline.confirm
    new = drawn(challenger, shared, objective.names, range(wanted.draws), "promote")
    if outside := broken(objective, means(new)):
        return Verdict(False, f"{outside} (mean of {_draws(shared, wanted)})")
    if champion is None:
        return Verdict(True, "there was no champion before")
    name = f"version {champion.version}"
    if champion.tags.get(registry.WEIGHTS_TAG) == identity[registry.WEIGHTS_TAG]:
        return Verdict(False, f"its weights are those of {name}, bit for bit")
    uri = sweep.tracker.uri
    reigning = load_generator(registry.fetch(uri, champion.uri), shared.device)
    _comparable(challenger, reigning, shared)
    old = drawn(reigning, shared, objective.names, range(wanted.draws), "promote")
    metric = objective.metric.name
    ours, theirs = [score[metric] for score in new], [score[metric] for score in old]
    if outside := broken(objective, means(old)):
        score = Estimate.of(ours, wanted.confidence)
        return Verdict(True, f"{metric} {score} keeps the bounds, and {name} does not: {outside}")
    return compare(objective, ours, theirs, name, wanted, _draws(shared, wanted))


def compare(
    objective: Objective, ours: list[float], theirs: list[float], name: str, wanted: ConfirmSpec, draws: str
) -> Verdict:
    """A paired t interval (both were scored on the same noise, draw by draw) of how much better the challenger is.

    The challenger is better if all of the interval lies above 0. What is random here are the draws: these two
    generators are compared, not their configurations, on this held-out half.
    """
    badness = objective.metric.badness
    gain = Estimate.of([badness(old) - badness(new) for new, old in zip(ours, theirs, strict=True)], wanted.confidence)
    new, old = Estimate.of(ours, wanted.confidence), Estimate.of(theirs, wanted.confidence)
    metric = objective.metric.name
    if gain.low is None or gain.high is None:
        better, how = isfinite(new.mean), "not all draws are finite"
    elif better := gain.low > 0:
        how = f"it is better by {gain.mean:.2g} ± {gain.half:.2g}"
    elif gain.high < 0:
        how = f"it is worse by {-gain.mean:.2g} ± {gain.half:.2g}"
    else:
        how = f"the difference {abs(gain.mean):.2g} lies within ±{gain.half:.2g}"
    verb = "beats" if better else "does not beat"
    reason = f"{metric} {new} {verb} {old} of {name}: {how} "
    reason += f"({100 * wanted.confidence:g} %, {draws})"
    compared = {"with": name, "metric": metric, "better": better}
    return Verdict(
        better, reason, compared | {"this": asdict(new), "champion": asdict(old), "difference": asdict(gain)}
    )


def _comparable(challenger: Generator, champion: Generator, shared: Setup) -> None:
    if champion.sample_shape != tuple(shared.dataset.sample_shape):
        raise SaddleError(f"the champion generates samples of shape {champion.sample_shape}, not of the data's shape "
                          f"{tuple(shared.dataset.sample_shape)}; promote under another model name")  # fmt: skip
    if (theirs := _kind(champion)) != (ours := _kind(challenger)):
        raise SaddleError(f"the champion {theirs}, and the challenger {ours}; promote under another model name")


def _kind(generator: Generator) -> str:
    """What it does, as one says it: two kinds cannot be scored side by side."""
    if generator.game.translate:
        return "translates"
    what = "draws samples of a class" if generator.classes else "draws samples"
    return f"{what} and infers latents" if generator.game.inference else what


def _draws(shared: Setup, wanted: ConfirmSpec) -> str:
    return f"{wanted.draws} draws of {shared.scorer.samples}"


def _tags(sweep: Sweep, confirmation: Confirmation, winner: Candidate) -> dict[str, str]:
    """What one finds versions by in the registry."""
    name = confirmation.metric
    found = winner.estimates[name]
    spread = "" if found.sd is None else f" ± {found.sd:.2g}"
    return {
        "saddle.name": sweep.folder.name,
        "saddle.pipeline": sweep.pipeline.fingerprint(),
        "saddle.values": ", ".join(f"{name}={value}" for name, value in winner.values.items()),
        f"saddle.confirmed.{name}": f"{found.mean:.4g}{spread} over {found.count} seeds",
        **({f"saddle.floor.{name}": f"{confirmation.floor[name]:.4g}"} if name in confirmation.floor else {}),
        **protocol_tags(sweep.shared),
    }
