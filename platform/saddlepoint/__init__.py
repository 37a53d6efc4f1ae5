"""Saddlepoint searches, scales, compares and promotes adversarial models.

from saddlepoint import Pipeline, load_generator, sweep

records = sweep(Pipeline.load("digits-wgan", ["search.trials=8"]))
digits = load_generator("models:/digits-generator@champion").sample(64)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .spec import Pipeline
    from .training.loop import train
    from .workflows.evaluate import evaluate
    from .workflows.generate import generate
    from .workflows.generate import load as load_generator
    from .workflows.plan import plan
    from .workflows.run import run
    from .workflows.session import session
    from .workflows.sweep import sweep

__all__ = ["Pipeline", "evaluate", "generate", "load_generator", "plan", "run", "session", "sweep", "train"]

_HOME = {
    "Pipeline": ("spec", "Pipeline"),
    "train": ("training.loop", "train"),
    "evaluate": ("workflows.evaluate", "evaluate"),
    "generate": ("workflows.generate", "generate"),
    "load_generator": ("workflows.generate", "load"),
    "plan": ("workflows.plan", "plan"),
    "run": ("workflows.run", "run"),
    "session": ("workflows.session", "session"),
    "sweep": ("workflows.sweep", "sweep"),
}


def __getattr__(name: str) -> Any:
    """Imports on first use: the command line and the workers load only the rooms that they need."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(import_module(f".{module}", __name__), attribute)
