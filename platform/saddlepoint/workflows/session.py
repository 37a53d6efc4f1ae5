"""Several sweeps in one program, on the same Ray."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..scaling import cluster
from .folder import home


@contextmanager
def session(*, cpus: int | None = None) -> Iterator[None]:
    """While it holds, Ray runs, here with `cpus` CPUs (None: all there are) or at RAY_ADDRESS, and a sweep that follows
    another within a minute finds its workers warm. Ray's log goes to `session.log` beside the sweeps.

    Raises UserError if no cluster answers at RAY_ADDRESS.
    """
    with cluster.running(cpus=cpus, log=home() / "session.log"):
        yield
