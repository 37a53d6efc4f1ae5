"""What happened in a sweep, to look at: one HTML page that needs nothing but a browser."""

from ..sweep import Sweep
from .page import Report, report, write_report

__all__ = ["Report", "publish", "report", "write_report"]


def publish(at: Sweep) -> None:
    """The page in the sweep's folder, and among the artifacts of its parent run."""
    at.tracker.drain(timeout=0 if at.tracker.trouble else 30)  # the pictures on it come from there
    done = write_report(at.pipeline, at.folder, at.ledger)
    at.tracker.artifact("sweep", "report.html", done.path.read_bytes())
