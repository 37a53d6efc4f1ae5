"""What a report shows from the tracking store, as far as the store answers in time: a report never waits for it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import SaddleError
from ...spec import Pipeline
from ...tracking.pictures import Gallery
from ...tracking.registry import RegisteredVersion, champion
from ...training.look import PICTURES
from ..folder import Folder

COLUMNS = 6  # pictures of a trial, over its rounds
FLOOR = "floor/"  # what begins the names of these metrics of the parent run


@dataclass
class Tracked:
    """Filled piece by piece. trouble: why the rest is missing, in one line."""

    floor: dict[str, float] = field(default_factory=dict)
    champion: RegisteredVersion | None = None
    pictures: dict[int, dict[int, bytes]] = field(default_factory=dict)  # trial -> round -> PNG
    trouble: str = ""


def recall(
    folder: Folder, pipeline: Pipeline, trials: Sequence[int], *, tracking_uri: str | None = None, seconds: float = 20
) -> Tracked:
    """At most `seconds`. Then the thread that still waits is left to itself, and cannot keep the process alive."""
    filling = Tracked()

    def fill() -> None:
        try:
            gallery = Gallery.of(folder.tracking, tracking_uri)
            measured = gallery.metrics("sweep")
            filling.floor = {name.removeprefix(FLOOR): measured[name] for name in measured if name.startswith(FLOOR)}
            if pipeline.promote is not None:
                filling.champion = champion(gallery.uri, pipeline.promote.model, pipeline.promote.alias)
            for number in trials:
                filling.pictures[number] = gallery.pictures(f"trial-{number:04d}", PICTURES, COLUMNS)
        except SaddleError as error:
            filling.trouble = str(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    thread.join(seconds)
    # A copy: what arrives later arrives too late.
    trouble = f"the tracking store did not answer within {seconds:g} s" if thread.is_alive() else filling.trouble
    return Tracked(filling.floor, filling.champion, dict(filling.pictures), trouble)
