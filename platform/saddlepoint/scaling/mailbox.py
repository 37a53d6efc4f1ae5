"""What stands between a group of processes and its caller: an actor, for neither of them can be called."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True)
class Post:
    """A group's box in a mailbox, for whoever is sent a copy."""

    mailbox: Any
    name: str

    def ask(self, what: str, *content: Any) -> Any:
        """Calls the mailbox by the name of a method."""
        return ray.get(getattr(self.mailbox, what).remote(self.name, *content))


def make() -> Any:
    """A new mailbox, on this node; it lives as long as its maker."""
    near = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=near).remote()


class _Box:
    def __init__(self) -> None:
        self.letters: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.answers: asyncio.Queue[bool] = asyncio.Queue()
        self.words: list[tuple[str, bytes]] = []
        self.decision = self.closed = False


class Mailbox:
    """Serves any number of groups, each with a box of its own."""

    def __init__(self) -> None:
        self.boxes: defaultdict[str, _Box] = defaultdict(_Box)

    async def report(self, name: str, letter: bytes) -> bool:
        """Returns when the caller has taken it: whether to stop."""
        box = self.boxes[name]
        box.letters.put_nowait(letter)
        return box.closed or await box.answers.get()

    async def exchange(self, name: str, answer: bool | None) -> bytes | None:
        """The answer to the last letter for the next one; None if none will come."""
        box = self.boxes[name]
        if answer is not None:
            box.answers.put_nowait(answer)
        return await box.letters.get()

    async def close(self, name: str) -> None:
        """No letters will be heard any more; who waits for an answer shall stop."""
        box = self.boxes[name]
        box.closed = True
        box.answers.put_nowait(True)
        box.letters.put_nowait(None)

    async def say(self, name: str, kind: str, word: bytes) -> None:
        self.boxes[name].words.append((kind, word))

    async def last_words(self, name: str) -> list[tuple[str, bytes]]:
        return self.boxes[name].words

    async def decide(self, name: str, stop: bool) -> None:
        """Says what `decided` answers."""
        self.boxes[name].decision = stop

    async def decided(self, name: str) -> bool:
        return self.boxes[name].decision
