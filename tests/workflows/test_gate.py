"""The gate and the way back, over the real registry: challengers whose worth is known beside a trained generator.

Shrunk, a generator is worse (its ring too small); with its latents in another order it is another one of equal worth.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from saddlepoint.errors import SaddleError
from saddlepoint.generator import load_generator, save_generator
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.card import machine, pipeline_of, read_card
from saddlepoint.workflows.confirm import Confirmation, confirm
from saddlepoint.workflows.promote import Promotion, promote
from saddlepoint.workflows.rollback import Move, happened, history, reigns, rollback, taken_back
from saddlepoint.workflows.sweep import Sweep, opened

from ..conftest import SEARCH, TOY
from .conftest import in_process

Weights = dict[str, torch.Tensor]
BOUNDED = {"constraints": {"recall": {"at_least": 0.5}}}


def pipeline(**sections: Any) -> Pipeline:
    content = deepcopy(TOY | {"search": SEARCH | {"trials": 2}}) | {
        "name": "gate",
        "confirm": {"top": 1, "seeds": 2, "draws": 4},
        "promote": {"model": "ring"},
    }
    content["training"] |= {"rounds": 120, "evaluate_every": 60}
    content["objective"] |= sections
    return Pipeline.parse(content)


@dataclass
class Arena:
    """One confirmed sweep; `enter` lets changed copies of its winner stand for `model`."""

    sweep: Sweep
    confirmation: Confirmation
    model: str = "ring"
    entered: list[Path] = field(default_factory=list)

    def enter(self, change: Callable[[Weights], Any], *, force: bool = False, **objective: Any) -> Promotion:
        self.entered.append(self.sweep.folder.path.parent / f"{self.model}-{len(self.entered)}")
        shutil.copytree(self.confirmation.winner.folders[0], self.entered[-1])
        (self.entered[-1] / "draws.json").unlink()
        made = load_generator(self.entered[-1])
        change(made.networks["generator"].state_dict())
        save_generator(self.entered[-1], made.networks, made.card)
        return self.offer(len(self.entered) - 1, force=force, **objective)

    def offer(self, number: int, *, force: bool = False, **objective: Any) -> Promotion:
        """What entered as that, once more."""
        target, winner = self.sweep.pipeline.promote, self.confirmation.winner
        assert target is not None
        named = {"promote": target.model_copy(update={"model": self.model})}
        at = replace(self.sweep, pipeline=pipeline(**objective).model_copy(update=named))
        one = replace(
            winner,
            seeds=winner.seeds[:1],
            scores=winner.scores[:1],
            folders=[self.entered[number]],
            keys=[f"confirm-{number:04d}"],
        )
        return promote(at, replace(self.confirmation, candidates=[one]), force=force)

    @property
    def champion(self) -> int | None:
        found = registry.champion(None, self.model)
        return found and found.version

    def tags(self, version: int) -> dict[str, str]:
        return registry.models(None, self.model)[version - 1].tags


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gate"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sweep_room, "execute", in_process)
        patch.setattr(sweep_room.cluster, "running", lambda **_: sweep_room.nullcontext())
        with opened(pipeline()) as sweep:
            sweep.search_on()
            for number in range(4):  # runs for the challengers to stand on
                key = f"confirm-{number:04d}"
                sweep.tracker.start_run(key, name=key, parent="sweep", params={}, tags={})
            yield Arena(sweep, confirm(sweep))


@pytest.fixture
def arena(confirmed: Arena, request: pytest.FixtureRequest) -> Arena:
    """A registered model of its own for each test."""
    return replace(confirmed, model="ring-" + re.sub(r"[^\w-]", "-", request.node.name)[-50:], entered=[])


def trained(weights: Weights) -> None:
    """As it is."""


def shrunk(factor: float) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for weight in weights.values():
            if weight.dim() == 2:
                weight.mul_(factor)

    return change


def reordered(weights: Weights) -> None:
    weights["layers.0.weight"].copy_(weights["layers.0.weight"].flip(1))


def test_a_worse_one_is_refused_a_better_one_accepted_and_force_is_recorded(arena: Arena) -> None:
    first = arena.enter(shrunk(0.4))
    assert (first.version, first.moved, first.reason) == (1, True, "there was no champion before")
    worse = arena.enter(shrunk(0.1))
    assert (worse.version, worse.moved, arena.champion) == (2, False, 1)
    assert " does not beat " in worse.reason
    assert "of version 1: it is worse by " in worse.reason
    assert worse.reason.endswith("(95 %, 4 draws of 100)")
    better = arena.enter(trained)
    assert (better.version, better.moved, arena.champion) == (3, True, 3)
    assert " beats " in better.reason
    forced = arena.enter(shrunk(0.2), force=True)
    assert (forced.version, forced.moved, arena.champion) == (4, True, 4)
    assert "does not beat" in forced.reason
    assert forced.reason.endswith("; forced")
    assert [arena.tags(n)["saddle.promotion"] for n in (2, 3, 4)] == [worse.reason, better.reason, forced.reason]
    moves = history(None, arena.model, "champion", 4)
    assert [(m.version, m.before, m.how) for m in moves] == [
        (1, None, "promoted"), (3, 1, "promoted"), (4, 3, "forced")
    ]  # fmt: skip
    assert moves[-1].why == forced.reason


def test_an_equal_one_is_refused(arena: Arena) -> None:
    arena.enter(trained)
    other = arena.enter(reordered)
    assert (other.moved, arena.champion) == (False, 1)
    assert "of version 1: the difference " in other.reason
    assert " lies within ±" in other.reason
    same = arena.enter(trained)
    assert (same.version, same.moved) == (3, False)
    assert same.reason == "its weights are those of version 1, bit for bit"


def test_what_breaks_a_bound_is_refused_even_without_a_champion(arena: Arena) -> None:
    refused = arena.enter(shrunk(0.2), **BOUNDED)
    assert (refused.moved, arena.champion) == (False, None)
    assert refused.reason.startswith("recall 0 violates recall >= 0.5 (mean of 4 draws of 100)")
    forced = arena.enter(shrunk(0.1), force=True, **BOUNDED)
    assert (forced.moved, forced.reason[-8:]) == (True, "; forced")
    within = arena.enter(trained, **BOUNDED)
    assert within.moved
    assert "keeps the bounds, and version 2 does not: recall 0 violates" in within.reason
    again = arena.enter(shrunk(0.2), **BOUNDED)
    assert (again.moved, arena.champion) == (False, 3)


def test_repeated_the_champion_stays_what_it_is(arena: Arena) -> None:
    arena.enter(trained)
    again = arena.offer(0, force=True)
    assert (again.version, again.moved, again.reason) == (1, False, "it is the champion already")


def test_rollback_goes_back_reign_by_reign(arena: Arena) -> None:
    arena.enter(shrunk(0.4))
    arena.enter(shrunk(0.1))  # refused: it never reigned
    arena.enter(trained)
    arena.enter(shrunk(0.2), force=True)

    back = rollback(arena.model)
    assert (back.version, back.before, arena.champion) == (3, 4, 3)
    assert arena.tags(4)["saddle.promotion"] == "rolled back to version 3"
    assert (rollback(arena.model).version, arena.champion) == (1, 1)
    with pytest.raises(SaddleError, match=r"no version was champion before version 1; there is nothing to roll back"):
        rollback(arena.model)
    assert arena.champion == 1


def test_what_was_rolled_back_returns_by_force_alone(arena: Arena) -> None:
    arena.enter(shrunk(0.4))
    arena.enter(trained)
    rollback(arena.model)
    refused = arena.offer(1)
    assert (refused.version, refused.moved, arena.champion) == (2, False, 1)
    assert refused.reason.startswith("it was rolled back to version 1 at 20")
    between = arena.enter(shrunk(0.6))  # against version 1, which reigns, and not against what was taken back
    assert (between.version, between.moved) == (3, True)
    assert "of version 1" in between.reason
    forced = arena.offer(1, force=True)
    assert (forced.version, forced.moved, arena.champion) == (2, True, 2)
    assert [rollback(arena.model).version for _ in range(2)] == [3, 1]


@pytest.mark.parametrize("write", ["set_alias", "tag_model"])
def test_killed_at_either_write_the_story_stays_true(arena: Arena, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    arena.enter(shrunk(0.4))
    with monkeypatch.context() as patch:
        patch.setattr(registry, write, killed)
        with pytest.raises(KeyboardInterrupt):
            arena.enter(trained)
    assert arena.champion == 1
    assert [move.version for move in history(None, arena.model, "champion", 1)] == [1]
    with pytest.raises(SaddleError, match="nothing to roll back"):
        rollback(arena.model)  # what was not promoted cannot be taken back

    again = arena.offer(1)
    assert (again.version, again.moved, arena.champion) == (2, True, 2)
    with monkeypatch.context() as patch:
        patch.setattr(registry, write, killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(arena.model)
    assert arena.champion == 2
    assert (rollback(arena.model).version, arena.champion) == (1, 1)
    assert [move.how for move in history(None, arena.model, "champion", 1)] == ["promoted", "promoted", "rolled back"]


def test_an_alias_moved_by_hand_and_versions_that_were_deleted(arena: Arena) -> None:
    for factor in (0.4, 0.6, 1.0):
        arena.enter(shrunk(factor))
    assert arena.champion == 3
    registry.set_alias(None, arena.model, "champion", 1)
    assert rollback(arena.model).version == 3
    MlflowClient(arena.sweep.tracker.uri).delete_model_version(arena.model, "2")
    assert rollback(arena.model).version == 1


def moves(*entries: tuple[int, int | None, str]) -> list[Move]:
    return [Move(version, before, how, "", "") for version, before, how in entries]  # type: ignore[arg-type]


P, R = "promoted", "rolled back"
CASES = [
    (moves(), None, [], []),
    (moves(), 4, [], [4]),  # older than the history
    (moves((1, None, P), (3, 1, P)), 3, [1, 3], [1, 3]),
    (moves((1, None, P), (3, 1, P)), 1, [1], [1]),  # killed before the second
    (moves((1, None, P), (3, 1, P), (3, 1, P)), 3, [1, 3], [1, 3]),  # and repeated
    (moves((1, None, P), (3, 1, P), (1, 3, R)), 1, [1, 3, 1], [1]),
    (moves((1, None, P), (3, 1, P), (1, 3, R)), 3, [1, 3], [1, 3]),  # killed before the rollback
    (moves((1, None, P), (3, 1, P), (1, 3, P)), 1, [1, 3, 1], [1, 3, 1]),  # the first again, by force
    (moves((1, None, P), (3, 1, P), (1, 3, P), (3, 1, R)), 3, [1, 3, 1, 3], [1, 3]),
    (moves((1, None, P), (3, 1, P)), 2, [1, 3], [1, 3, 2]),  # by hand
    (moves((1, None, P), (5, 2, P)), 5, [1, 5], [1, 2, 5]),  # by hand, in between
]


@pytest.mark.parametrize(("written", "now", "made", "stack"), CASES)
def test_who_reigned(written: list[Move], now: int | None, made: list[int], stack: list[int]) -> None:
    found = happened(written, now)
    assert [move.version for move in found] == made
    assert reigns(found, now) == stack


def test_a_later_reign_makes_a_rollback_forgotten() -> None:
    taken = moves((1, None, P), (3, 1, P), (1, 3, R))
    assert taken_back(taken, 3) == taken[-1]
    assert taken_back(taken, 1) is None
    assert taken_back([*taken, *moves((3, 1, "forced"))], 3) is None


def test_the_card_says_what_makes_the_model_again_and_what_it_is_worth(arena: Arena) -> None:
    arena.enter(shrunk(0.4))
    promoted = arena.enter(trained)
    [_, version] = registry.models(None, arena.model)
    package = registry.fetch(None, version.uri)
    card, winner = read_card(package), arena.confirmation.winner

    again = pipeline_of(card)
    assert again == arena.sweep.pipeline.with_values(winner.values).model_copy(
        update={"seed": winner.seeds[0], "promote": again.promote}
    )
    assert card["weights"] == version.tags["saddle.weights"] == registry.weights_hash(package)
    assert card["protocol"] == arena.sweep.shared.scorer.protocol
    assert card["data"]["fingerprint"] == arena.sweep.shared.dataset.fingerprint
    assert card["run"] == {"key": "confirm-0001", "run_id": version.run_id}
    assert card["sweep"]["run_id"] == arena.sweep.tracker.run_id("sweep")
    assert card["machine"] == machine(arena.sweep.shared)
    assert card["floor"]["emd"] == arena.confirmation.floor["emd"]
    score, over_seeds = card["generator"]["emd"], card["configuration"]["emd"]
    assert score["low"] < score["mean"] < score["high"]
    assert (score["count"], over_seeds["count"]) == (4, 2)
    compared = card["compared"]
    assert compared["this"]["mean"] != score["mean"]  # draws that chose a generator do not judge it
    assert (compared["with"], compared["better"]) == ("version 1", True)
    gain = compared["champion"]["mean"] - compared["this"]["mean"]
    assert compared["difference"]["mean"] == pytest.approx(gain)
    for said in (promoted.reason, f"| emd | {score['mean']:.4g} ± ", card["weights"], str(winner.seeds[0])):
        assert said in version.description


def test_a_folder_without_a_whole_card_is_the_users_error(
    tmp_path: Path, refusal: Callable[[Callable[[], object]], str]
) -> None:
    assert "holds no card.json" in refusal(lambda: read_card(tmp_path))
    for content, says in [("{", "is no JSON"), ("[]", "no card of format 1"), ('{"format": 1}', "pipeline is missing")]:
        (tmp_path / "card.json").write_text(content)
        assert says in refusal(lambda: read_card(tmp_path))
    assert json.loads((tmp_path / "card.json").read_text()) == {"format": 1}
