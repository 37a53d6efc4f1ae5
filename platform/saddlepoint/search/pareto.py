"""Ranking by two metrics at once: non-dominated fronts, and which points of one front keep its spread.

Points are tuples of two numbers, both to be minimised.
"""

from bisect import bisect_right
from collections.abc import Sequence

Point = tuple[float, float]


def fronts(points: Sequence[Point]) -> list[int]:
    """The front of each of the points, which come sorted: 0 for those that no other dominates, 1 for those that only
    points of front 0 dominate, and so on. O(n log n).

    In this order a point can only be dominated by an earlier one, and a front, whose second numbers fall, dominates it
    if its last point does. The last points' second numbers rise from front to front, so bisection finds the first
    front that does not (Jensen 2003, "Reducing the run-time complexity of multiobjective EAs", section III).
    """
    found: list[int] = []
    lowest: list[float] = []  # by front: the second number of its last point
    for i, point in enumerate(points):
        if i and point == points[i - 1]:  # equals do not dominate each other
            found.append(found[-1])
            continue
        front = bisect_right(lowest, point[1])
        lowest[front : front + 1] = [point[1]]
        found.append(front)
    return found


def spread(points: Sequence[Point]) -> list[int]:
    """The indices of one front's points such that the first k of them cover it well, for every k.

    Each next one is the farthest from those before it (the epsilon net of Salinas et al. 2021 by which Schmucker et
    al. 2021, arXiv:2106.12639, algorithm 1, break the ties within a front), each metric in units of its extent; the
    first is the best by the first metric.
    """
    extents = [max(metric) - min(metric) or 1.0 for metric in zip(*points, strict=True)]

    def distance(i: int, j: int) -> float:
        return sum(((a - b) / e) ** 2 for a, b, e in zip(points[i], points[j], extents, strict=True))

    chosen = [min(range(len(points)), key=points.__getitem__)]
    nearest = [distance(i, chosen[0]) for i in range(len(points))]  # to any of the chosen
    while len(chosen) < len(points):
        farthest = max((i for i in range(len(points)) if i not in chosen), key=nearest.__getitem__)
        chosen.append(farthest)
        nearest = [min(before, distance(i, farthest)) for i, before in enumerate(nearest)]
    return chosen
