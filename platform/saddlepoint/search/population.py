"""Population-based training: who goes on from whom, and with which values.

Jaderberg et al. (2017), "Population Based Training of Neural Networks", arXiv:1711.09846, section 3 and Algorithm 1,
with truncation selection as exploit, perturbing and resampling as explore. Here a *piece* is a trial: what one member
plays in one generation, from round `generation * every` to the next multiple. What a member has learned is a line of
pieces, and what a population finds is not a configuration but the schedule of values along such a line.

A generation is synchronous: the next one begins when every piece of this one has ended. All decisions are therefore
functions of the ledger's records and of the sweep's seed, and never of which worker was faster or was killed; the price
is that workers wait for the slowest piece of each generation, little where members are many times the workers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from saddlepoint.metrics.objective import Objective
from saddlepoint.randomness import derive, stream
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome, Suggestion, TrialRecord
from saddlepoint.space import Choice, Fixed, FloatRange, IntRange, Parameter, Space
from saddlepoint.spec import PopulationSpec

MEMBER, GENERATION, PARENT, BEGINS = "member", "generation", "parent", "begins"  # among the attrs of a queued piece
FACTORS = (0.8, 1.25)  # by which a value is changed; together they cancel
Number = TypeVar("Number", int, float)
Schedule = list[tuple[int, dict[str, Any]]]  # the round at which each piece ends, and its values


@dataclass(frozen=True)
class Piece:
    """A trial's place in the population. parent: the trial that it goes on from; None in generation 0."""

    trial: TrialRecord
    member: int
    generation: int
    parent: int | None

    @property
    def ended(self) -> bool:
        return self.trial.state not in ("waiting", "running")

    @property
    def complete(self) -> bool:
        return self.trial.state == Outcome.COMPLETE


@dataclass(frozen=True)
class Child:
    """A piece to be queued. Its seed is its own: equal values of two members, or of two generations, are two trials."""

    values: dict[str, Any]
    seed: int
    attrs: dict[str, int]


class Population:
    """Decides; keeps nothing. rounds: of a whole training; seed: of the sweep."""

    def __init__(self, spec: PopulationSpec, *, space: Space, objective: Objective, rounds: int, seed: int) -> None:
        self.spec, self.space, self.objective, self.rounds, self.seed = spec, space, objective, rounds, seed
        self.generations = -(-rounds // spec.every)

    def span(self, generation: int) -> tuple[int, int]:
        """The rounds after which its pieces begin and end."""
        return generation * self.spec.every, min((generation + 1) * self.spec.every, self.rounds)

    def pieces(self, trials: Sequence[TrialRecord]) -> dict[int, Piece]:
        """By trial number. What the ledger's sampler suggested is generation 0, its members in order."""
        found: dict[int, Piece] = {}
        for trial in trials:
            if trial.state == Outcome.DUPLICATE:
                continue
            if GENERATION in trial.attrs:
                place = trial.attrs[MEMBER], trial.attrs[GENERATION], trial.attrs[PARENT]
            else:
                place = len(found), 0, None
            found[trial.number] = Piece(trial, *place)
        return found

    def suggestions(self, ledger: Ledger, *, new: bool = True) -> list[Suggestion]:
        """All that there is to play now; [] while the newest generation is out, and after the last one.

        A generation is in the ledger as a whole before any of its pieces is given out, so that what the sampler draws
        for the first one does not depend on when its pieces end. new: whether one may begin.
        """
        members = self.spec.members if new or ledger.trials() else 0

        def asked() -> list[Suggestion]:
            return list(iter(lambda: ledger.next(members), None))

        found = asked()  # before anything is decided: the ledger now ends what a killed process told it by halves
        for child in self.due(ledger.trials()) if new else ():
            ledger.enqueue(child.values, seed=child.seed, attrs=child.attrs)
        return found + asked()

    def due(self, trials: Sequence[TrialRecord]) -> list[Child]:
        """The whole next generation, once all of the newest one has ended; [] before, and after the last.

        The same again until all of it is queued. Empty, too, if no member has ended with a score to go on from.
        """
        newest = self._newest(self.pieces(trials))
        if not newest or newest[0].generation + 1 == self.generations or not all(piece.ended for piece in newest):
            return []
        return [self._child(piece, parent) for piece, parent in self.parents(newest)]

    def parents(self, pieces: Sequence[Piece]) -> list[tuple[Piece, Piece]]:
        """Each member of a generation, and from whom it goes on: truncation selection. [] if none has a score.

        A member in the bottom quantile goes on from one of the top quantile, drawn at random, as does one without a
        score, which ranks last; every other member goes on from itself.
        """
        ranked = sorted(
            (piece for piece in pieces if piece.complete), key=lambda piece: (self._key(piece), piece.member)
        )
        count = max(1, int(self.spec.quantile * len(pieces) + 1e-9))
        top, going_on = ranked[:count], ranked[: max(count, len(pieces) - count)]
        kept = {piece.member for piece in going_on}
        return [(piece, piece if piece.member in kept else self._drawn(piece, top)) for piece in pieces if top]

    def extinct(self, trials: Sequence[TrialRecord]) -> bool:
        """Whether a generation is due that nobody is left to begin."""
        newest = self._newest(self.pieces(trials))
        going_on = bool(newest) and newest[0].generation + 1 < self.generations
        return going_on and all(piece.ended and not piece.complete for piece in newest)

    def held(self, trials: Sequence[TrialRecord]) -> set[int]:
        """The trials whose checkpoints somebody goes on from, or may: the newest generation, unless it is the last,
        and the parents of what has not ended."""
        pieces = self.pieces(trials)
        newest = self._newest(pieces)
        last = bool(newest) and newest[0].generation + 1 == self.generations
        held = {piece.parent for piece in pieces.values() if not piece.ended and piece.parent is not None}
        return held | {piece.trial.number for piece in newest if piece.complete and not last}

    def schedule(self, trials: Sequence[TrialRecord], number: int) -> Schedule:
        """The values along a trial's line, from the first round to the last one; pieces with equal values are one."""
        pieces = self.pieces(trials)
        line: Schedule = []
        place: int | None = number
        while place is not None:
            piece = pieces[place]
            if not line or line[0][1] != piece.trial.values:
                line.insert(0, (self.span(piece.generation)[1], piece.trial.values))
            place = piece.parent
        line[-1] = self.rounds, line[-1][1]  # a population that was ended before its time goes on as it was
        return line

    def finalists(self, trials: Sequence[TrialRecord], among: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Of some trials those that have come furthest, best first, each schedule once."""
        pieces = self.pieces(trials)
        furthest = max((pieces[trial.number].generation for trial in among), default=0)
        found = [trial for trial in among if pieces[trial.number].generation == furthest]
        lines: list[Schedule] = []
        best: list[TrialRecord] = []
        for trial in sorted(found, key=lambda trial: (self.objective.key(trial.scores), trial.number)):
            line = self.schedule(trials, trial.number)
            if line not in lines:
                lines.append(line)
                best.append(trial)
        return best

    def explored(self, values: Mapping[str, Any], generation: int, member: int) -> dict[str, Any]:
        """Each parameter drawn anew with probability `resample`, otherwise moved a little; all within the space."""

        def explore(name: str, parameter: Parameter) -> Any:
            rng = stream(self.seed, "population", generation, member, "explore", name)
            anew = _uniform(rng) < self.spec.resample
            if anew or name not in values:  # a condition that holds only now
                return drawn(parameter, rng)
            return perturbed(parameter, values[name], rng)

        return self.space.walk(explore)

    def _newest(self, pieces: Mapping[int, Piece]) -> list[Piece]:
        """The newest generation that is whole, by member: a kill may have come while the next one was queued."""
        newest = max((piece.generation for piece in pieces.values()), default=0)
        groups = [[piece for piece in pieces.values() if piece.generation == g] for g in (newest - 1, newest)]
        whole = groups[0] if newest and len(groups[1]) < len(groups[0]) else groups[1]
        return sorted(whole, key=lambda piece: piece.member)

    def _key(self, piece: Piece) -> tuple[float, float]:
        """Of the scores at the piece's end: those of its best generator may be of an ancestor."""
        end, curves = self.span(piece.generation)[1], piece.trial.curves
        if any(end not in curves[name] for name in self.objective.names):  # it was not finite
            return math.inf, math.inf
        return self.objective.key({name: curves[name][end] for name in self.objective.names})

    def _drawn(self, piece: Piece, top: Sequence[Piece]) -> Piece:
        rng = stream(self.seed, "population", piece.generation + 1, piece.member, "parent")
        return top[_index(rng, len(top))]

    def _child(self, piece: Piece, parent: Piece) -> Child:
        member, generation, values = piece.member, piece.generation + 1, parent.trial.values
        return Child(
            values=dict(values) if parent is piece else self.explored(values, generation, member),
            seed=derive(self.seed, "population", generation, member, "training") % 2**32,
            attrs={
                MEMBER: member,
                GENERATION: generation,
                PARENT: parent.trial.number,
                BEGINS: self.span(generation)[0],
            },
        )


def drawn(parameter: Parameter, rng: torch.Generator) -> Any:
    """Anew from the space."""
    u = _uniform(rng)
    match parameter:
        case FloatRange(low=low, high=high, log=True):
            return _within(math.exp(math.log(low) + u * math.log(high / low)), low, high)
        case FloatRange(low=low, high=high):
            return _within(low + u * (high - low), low, high)
        case IntRange(low=low, high=high, log=True):
            ends = math.log(low - 0.5), math.log(high + 0.5)
            return _within(round(math.exp(ends[0] + u * (ends[1] - ends[0]))), low, high)
        case IntRange(low=low, high=high):
            return _within(low + math.floor(u * (high - low + 1)), low, high)
        case Choice(choices=choices):
            return choices[_within(math.floor(u * len(choices)), 0, len(choices) - 1)]
        case Fixed():
            raise TypeError("a fixed parameter has nothing to draw from")


def perturbed(parameter: Parameter, value: Any, rng: torch.Generator) -> Any:
    """0.8 or 1.25 times the value, a whole number by one at least; a choice becomes one of its neighbours."""
    way = _index(rng, 2)
    match parameter:
        case FloatRange(low=low, high=high):
            return _within(value * FACTORS[way], low, high)
        case IntRange(low=low, high=high):
            moved = round(value * FACTORS[way])
            return _within(max(moved, value + 1) if way else min(moved, value - 1), low, high)
        case Choice(choices=choices):
            place = choices.index(value)
            neighbours = [near for near in (place - 1, place + 1) if 0 <= near < len(choices)]
            return choices[neighbours[way % len(neighbours)]]
        case Fixed():
            return value


def _within(value: Number, low: Number, high: Number) -> Number:
    return min(max(value, low), high)


def _uniform(rng: torch.Generator) -> float:
    return float(torch.rand((), generator=rng, dtype=torch.float64))


def _index(rng: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=rng))
