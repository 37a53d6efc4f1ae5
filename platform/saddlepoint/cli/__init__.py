"""The command `saddle`: parses, calls, prints. What a command does stands in workflows/.

Exit codes: 0 done, 1 failed, 2 the user's input is wrong. Errors are one line on stderr.
The heavy rooms are imported by the command that needs them, so that `saddle --help` answers at once.
"""

import errno
import sys

import typer
from typer.exceptions import TyperException

from ..errors import SaddleError
from . import care, data, jobs, machine, models, report, sweeps

app = typer.Typer(
    help="Searches, scales, compares and promotes adversarial models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(sweeps.app)
app.add_typer(report.app)
app.add_typer(care.app)
app.add_typer(models.app)
app.add_typer(data.app, name="data", help="Data sets on disk.", no_args_is_help=True)
app.add_typer(jobs.app)
app.add_typer(machine.app)


FULL = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up"}
INTERRUPTED = 130  # what typer makes of Ctrl-C
CLOSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "permission denied"}


def complain(message: str) -> None:
    print(f"saddle: {' '.join(message.split())}", file=sys.stderr)


def main() -> None:
    """Runs the command and turns what went wrong into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except SaddleError as error:
        complain(str(error))
        code = error.exit_code
    except TyperException as error:
        complain(getattr(error, "format_message", error.__str__)())
        code = 2
    except KeyboardInterrupt:
        complain("stopped; everything that was done is on disk, and the same command goes on")
        code = 1
    except OSError as error:
        reason = (FULL | CLOSED).get(error.errno or 0)
        if reason is None:
            raise
        complain(f"cannot write {error.filename or 'here'}: {reason}")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
