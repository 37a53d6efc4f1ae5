"""Named streams: the same on every machine, and no two of them the same."""

import hashlib

import torch

from saddlepoint.randomness import derive, stream


def test_a_seed_is_the_head_of_a_hash() -> None:
    digest = hashlib.sha256(b"7/noise/3").hexdigest()
    assert derive(7, "noise", 3) == int(digest[:16], 16) // 2


def test_purposes_and_seeds_give_different_seeds() -> None:
    seeds = {derive(seed, *purpose) for seed in range(50) for purpose in (("a",), ("b",), ("a", 1), ("a", "b"), ())}
    assert len(seeds) == 250
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_are_uncorrelated_and_do_not_shift_each_other() -> None:
    n = 20_000
    drawn = torch.stack([torch.randn(n, generator=stream(0, name)) for name in ("init", "noise", "batches", "score")])
    correlations = torch.corrcoef(drawn) - torch.eye(4)
    assert correlations.abs().max() < 5 / n**0.5  # five standard deviations
    a, b = stream(0, "noise"), stream(0, "batches")
    torch.randn(17, generator=b)
    assert torch.equal(torch.randn(5, generator=a), torch.randn(5, generator=stream(0, "noise")))
