"""Pruners by name: when a running trial is stopped because others did better with as many rounds.

Their decisions rest on the storage alone: successive halving notes each rung that a trial has reached in that
trial's record, the others read the recorded values.
"""

from collections.abc import Callable

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from saddlepoint.errors import UserError, unknown

# Arguments: the rounds of a full trial, the rounds before the first decision, the reduction factor.
_PRUNERS: dict[str, Callable[[int, int, int], BasePruner]] = {
    # ASHA (Li et al. 2020, arXiv:1810.05934): of the trials at each rung, first * eta**k rounds, the best
    # 1/eta go on.
    "successive_halving": lambda rounds, first, eta: SuccessiveHalvingPruner(min_resource=first, reduction_factor=eta),
    "hyperband": lambda rounds, first, eta: HyperbandPruner(
        min_resource=first, max_resource=rounds, reduction_factor=eta
    ),
    # Three complete trials before a median says anything.
    "median": lambda rounds, first, eta: MedianPruner(n_startup_trials=3, n_warmup_steps=first),
    "none": lambda rounds, first, eta: NopPruner(),
}


def make_pruner(name: str, *, rounds: int, first: int | None = None, eta: int = 3) -> BasePruner:
    """The pruner `name` for trials of `rounds` rounds.

    `first`: rounds before the first decision; by default rounds / eta**2, which with successive halving means
    decisions at 1/9 and 1/3 of a trial. Raises UserError for an unknown name or numbers that make no rungs.
    """
    if name not in _PRUNERS:
        raise unknown("search.pruner", name, _PRUNERS)
    if eta < 2:
        raise UserError(f"search.eta: {eta} should be 2 or more")
    if first is None:
        first = max(1, rounds // eta**2)
    if not 1 <= first <= rounds:
        raise UserError(f"search.min_rounds: {first} should lie within 1 to the rounds of a trial, {rounds}")
    return _PRUNERS[name](rounds, first, eta)


def rungs(name: str, *, rounds: int, first: int | None = None, eta: int = 3) -> list[int]:
    """The rounds, before the end of a trial, at which a halving pruner decides; none for other pruners."""
    if name not in ("successive_halving", "hyperband"):
        return []
    rung = max(1, rounds // eta**2) if first is None else first
    found = []
    while rung < rounds:  # counted, not by a logarithm: log(243) / log(3) is 4.999...
        found.append(rung)
        rung *= eta
    return found
