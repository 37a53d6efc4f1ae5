"""The whole state of one training, and its verbs: play a round, evaluate, save, load."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SaddleError, UserError
from ..generator import Generator, load_generator, save_generator
from ..metrics.subject import Subject
from ..randomness import derive, stream
from ..remote import Place
from ..spec import Pipeline
from . import checkpoint
from .batches import batches
from .plain import Plain
from .sentinel import Sentinel
from .setup import Setup, build_game, build_networks, describe
from .speed import Speed
from .statistics import shared_statistics
from .subjects import subject
from .team import ALONE, Team, rows_of

CHECKPOINT = "checkpoint.pt"
FORMAT = 3  # of what `save` writes
WATCHED = 16  # translations that the sentinel looks at: enough to see a collapse to one point
Trace = list[tuple[int, dict[str, float]]]


def decay(kind: str, round: int, rounds: int) -> float:
    """The factor on every learning rate in round 0..rounds-1. Linear: 1 for half of them, then down to 0."""
    return 1.0 if kind == "constant" else min(1.0, 2.0 * (1.0 - round / rounds))


class Training:
    """In a team every member has one of these, equal in all but the rows that it sees."""

    def __init__(self, pipeline: Pipeline, seed: int, folder: Place, shared: Setup, team: Team = ALONE) -> None:
        self.spec, self.seed, self.folder, self.shared, self.team = pipeline.training, seed, folder, shared, team
        self.identity = f"{pipeline.fingerprint()}/{seed}"
        torch.manual_seed(derive(seed, "init"))  # initial weights, and what networks draw themselves (dropout)
        device, dataset = shared.device, shared.dataset
        self.game = build_game(pipeline)
        networks = build_networks(pipeline, self.game, shared)
        if team.size > 1:
            networks = {name: shared_statistics(network, team) for name, network in networks.items()}
        self._own_stream(0)
        speed = Speed(self.spec.precision, self.spec.channels_last, self.spec.compile, self.spec.accumulate)
        self.plain = Plain(self.game, networks, pipeline.hyperparameters(), seed, team, speed)
        self.batches = batches(dataset, self.spec.batch_size, seed, device, team=team)
        self.noise = stream(seed, "noise", device=device)
        self.card = describe(pipeline, self.game, dataset)
        self.average = self._copies() if self.spec.ema else None
        self.sentinel = Sentinel(self._looks_like())
        self.objective = pipeline.objective.built()
        self.round = 0
        self.seconds = 0.0  # spent so far, over all lives
        self.best: dict[str, Any] | None = None  # {"round": ..., "scores": {metric: value}}
        self.sums: dict[str, Tensor] = {}
        self.logged = 0  # the round of the newest entry that the trace ever had
        self.trace: Trace = []

    def _own_stream(self, round: int) -> None:
        """What networks draw themselves is drawn row by row, so each member needs other numbers; the first has those
        of a single process."""
        if not self.team.leads:
            torch.manual_seed(derive(self.seed, "member", self.team.rank, round))

    def _copies(self) -> dict[str, nn.Module]:
        return {name: copy.deepcopy(self.plain.networks[name]).eval().requires_grad_(False) for name in self.game.ships}

    def _looks_like(self) -> dict[str, Tensor]:
        """What samples should spread like: the data, or for a translation the domain that it leads to."""
        dataset = self.shared.dataset
        if not self.game.translate:
            return {"samples": dataset.train}
        assert dataset.target is not None  # setup has checked it
        return {"x_to_y": dataset.target.train, "y_to_x": dataset.train}

    @property
    def done(self) -> bool:
        return self.round >= self.spec.rounds

    @property
    def generator(self) -> Generator:
        """What is judged and kept: the moving averages where there are some."""
        kept = self.average or {name: self.plain.networks[name] for name in self.game.ships}
        return Generator(self.game, kept, self.card)

    def play(self) -> None:
        """One round. No number is read from the device, except for the log every `log_every` rounds."""
        logs = self.plain.round(
            self.batches,
            self._drawn,
            decay(self.spec.decay, self.round, self.spec.rounds),
        )
        self.round += 1
        for name, value in logs.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        if self.average is not None:
            self._update_average(self.average)
        if self.round % self.spec.log_every == 0 or self.done:
            self._log()

    def _drawn(self) -> Any:
        """This member's rows of the noise of one move."""
        size = self.spec.batch_size
        noise = self.game.noise(size, self.noise)
        return noise if self.team.size == 1 else rows_of(noise, self.team.rows(size))

    @torch.no_grad()
    def _update_average(self, averages: Mapping[str, nn.Module]) -> None:
        # (1 + t) / (10 + t), as TensorFlow's ExponentialMovingAverage: a young average forgets its start soon
        beta = min(self.spec.ema, (1 + self.round) / (10 + self.round))
        for name, average in averages.items():
            live = self.plain.networks[name]
            torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - beta)
            for kept, now in zip(average.buffers(), live.buffers(), strict=True):
                kept.copy_(now)  # running statistics are averages already

    def _log(self) -> None:
        names = list(self.sums)
        sums = self.team.average(torch.stack([self.sums[name].double() for name in names]))
        means = dict(zip(names, (sums / (self.round - self.logged)).tolist(), strict=True))
        self.sums, self.logged = {}, self.round
        self.trace.append((self.round, means))
        self.sentinel.see_logs(self.round, means)

    def take_trace(self) -> Trace:
        trace, self.trace = self.trace, []
        return trace

    def subject(self, purpose: str, generator: Generator | None = None) -> Subject:
        """What is scored, of the judged generator if none is given. A purpose has the same noise at every round."""
        rng = stream(self.seed, purpose, device=self.shared.device)
        return subject(generator or self.generator, self.shared.scorer.samples, rng)

    def watch(self, subject: Subject) -> None:
        """Raises Diverged if this run cannot recover."""
        self.sentinel.see_weights(self.round, self.plain.weights)
        self.sentinel.see_samples(self.round, self._made(subject))

    def _made(self, subject: Subject) -> dict[str, Tensor]:
        if subject.samples is not None:
            return {"samples": subject.samples}
        dataset = self.shared.dataset
        assert dataset.target is not None  # what makes no samples translates
        sources = {"x_to_y": dataset.heldout, "y_to_x": dataset.target.heldout}
        return {way: translate(sources[way][:WATCHED]) for way, translate in subject.translate.items()}

    def improves(self, scores: Mapping[str, float]) -> bool:
        """Whether these are the best so far, bounds first; if so they are remembered as such."""
        judged = {name: scores[name] for name in self.objective.names}
        if self.best is not None and not self.objective.is_better(judged, self.best["scores"]):
            return False
        self.best = {"round": self.round, "scores": judged}
        return True

    def save(self) -> None:
        """Written by the first of a team, for all."""
        device = self.shared.device
        drawing = self.team.collect(
            (torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)
        )
        self.sums = {name: self.team.average(value.clone()) for name, value in self.sums.items()}
        if not self.team.leads:
            return
        state: dict[str, Any] = {
            "format": FORMAT,
            "identity": self.identity,
            "round": self.round,
            "seconds": self.seconds,
            "best": self.best,
            "plain": self.plain.state_dict(),
            "average": self.average and {name: network.state_dict() for name, network in self.average.items()},
            "batches": self.batches.state_dict(),
            "noise": self.noise.get_state(),
            "drawing": drawing,  # by rank: what networks draw themselves
            "sentinel": self.sentinel.state_dict(),
            "log": {"sums": self.sums, "logged": self.logged, "trace": self.trace},
        }
        checkpoint.save(self.folder / CHECKPOINT, state)

    def load(self, inherit: Place | None = None) -> bool:
        """Goes on from the folder's checkpoint, if there is one; else from that in `inherit`, a run of equal structure
        with other hyperparameters, whose best generator it takes along. Raises UserError if the checkpoint is
        another run's, SaddleError if there is nothing to inherit."""
        path = self.folder / CHECKPOINT
        state = self._read(path)
        if state is None and inherit is not None:
            self._inherit(inherit)
            return True
        if state is None:
            return False
        if state.get("format") != FORMAT:
            raise SaddleError(
                f"{path} was written by another version of saddlepoint (format {state.get('format', 1)}, here "
                f"{FORMAT}); go on with that version, or remove it to start over"
            )
        if state["identity"] != self.identity:
            raise UserError(f"{path} belongs to another configuration or seed; use another folder, or remove it")
        self._restore(state)
        return True

    def _read(self, path: Place) -> dict[str, Any] | None:
        """Read by the first of a team, for all: the others may see another disk."""
        return self.team.tell(checkpoint.load(path) if self.team.leads else None)

    def _inherit(self, folder: Place) -> None:
        state = self._read(folder / CHECKPOINT)
        if state is None:
            raise SaddleError(f"{folder} holds no checkpoint to inherit")
        self._restore(state)
        if self.best is not None and self.team.leads:
            save_generator(self.folder, load_generator(folder).networks, self.card)
        self.save()

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.round, self.seconds, self.best = state["round"], state["seconds"], state["best"]
        self.plain.load_state_dict(state["plain"])
        if self.average is not None:
            for name, network in self.average.items():
                network.load_state_dict(state["average"][name])
        self.batches.load_state_dict(state["batches"])
        self.noise.set_state(state["noise"])
        if self.team.rank < len(state["drawing"]):
            cpu, cuda = state["drawing"][self.team.rank]
            torch.set_rng_state(cpu)
            if cuda is not None and self.shared.device.type == "cuda":
                torch.cuda.set_rng_state(cuda, self.shared.device)
        else:  # the team has grown
            self._own_stream(self.round)
        self.sentinel.load_state_dict(state["sentinel"])
        log = state["log"]
        self.sums = {name: value.to(self.shared.device) for name, value in log["sums"].items()}
        self.logged, self.trace = log["logged"], [(round, dict(means)) for round, means in log["trace"]]
