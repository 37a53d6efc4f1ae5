"""The state of one training: decay, the moving average, the log's means, and which generator is the best."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import Training, decay

Toy = Callable[..., Pipeline]


def test_linear_decay_is_one_for_half_of_the_rounds_then_falls_to_nothing() -> None:
    rates = [decay("linear", round, 10) for round in range(10)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert decay("linear", 10, 10) == 0
    assert {decay("constant", round, 10) for round in range(10)} == {1.0}


@pytest.mark.parametrize(("kind", "last"), [("linear", 2 / 12), ("constant", 1.0)])
def test_the_rounds_are_played_at_the_decayed_rates(
    kind: str, last: float, toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    training = Training(toy({"training.decay": kind}), 0, tmp_path, toy_setup)
    rates = []
    while not training.done:
        training.play()
        rates.append([opt.param_groups[0]["lr"] for opt in training.plain.optimizers.values()])
    assert len(rates) == 12
    assert rates[0] == [2e-3, 2e-3]
    assert rates[-1] == pytest.approx([2e-3 * last, 2e-3 * last])


def test_the_moving_average_against_its_recursion(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    """a_t = b a_(t-1) + (1 - b) w_t with b = min(ema, (1 + t) / (10 + t)), a_0 = w_0; buffers copied."""
    training = Training(toy({"training.ema": 0.25}), 0, tmp_path, toy_setup)
    live = training.plain.networks["generator"]
    expected = [w.detach().double().clone() for w in live.parameters()]
    for t in range(1, 9):
        training.play()
        b = min(0.25, (1 + t) / (10 + t))  # the second is the smaller one for t = 1
        now = [w.detach().double() for w in live.parameters()]
        expected = [b * a + (1 - b) * w for a, w in zip(expected, now, strict=True)]
    averaged = training.generator.networks["generator"]
    assert averaged is not live
    for a, w in zip(averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(a.double(), w, rtol=0, atol=1e-6)
    for kept, own in zip(averaged.buffers(), live.buffers(), strict=True):
        assert torch.equal(kept, own)
    assert any(not torch.equal(a, w) for a, w in zip(averaged.parameters(), live.parameters(), strict=True))


def test_without_an_average_the_network_itself_is_judged(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    training = Training(toy({"training.ema": 0.0}), 0, tmp_path, toy_setup)
    assert training.generator.networks["generator"] is training.plain.networks["generator"]


def test_the_average_is_only_looked_at(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    def play(values: dict[str, float], name: str) -> dict[str, Tensor]:
        training = Training(toy(values), 0, tmp_path / name, toy_setup)
        for _ in range(3):
            training.play()
            training.subject("score")
        return training.plain.networks["generator"].state_dict()

    with_it, without = play({"training.ema": 0.9}, "a"), play({"training.ema": 0.0}, "b")
    assert all(torch.equal(with_it[key], without[key]) for key in with_it)


def test_the_trace_holds_means_over_the_rounds_since_the_entry_before(
    toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    def trace(every: int) -> list[tuple[int, dict[str, float]]]:
        training = Training(toy({"training.log_every": every}), 0, tmp_path, toy_setup)
        while not training.done:
            training.play()
        return training.take_trace()

    single, grouped = trace(1), trace(5)
    assert [round for round, _ in single] == list(range(1, 13))
    assert [round for round, _ in grouped] == [5, 10, 12]
    assert set(single[0][1]) == {"loss_critic", "loss_generator", "emd"}
    for (low, high), (_, means) in zip(((0, 5), (5, 10), (10, 12)), grouped, strict=True):
        for name, mean in means.items():
            values = [logs[name] for _, logs in single[low:high]]
            assert mean == pytest.approx(sum(values) / len(values), rel=1e-6)


def test_samples_of_one_purpose_share_their_noise_and_nothing_else_is_touched(
    toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    training = Training(toy(), 0, tmp_path, toy_setup)
    training.play()
    live = training.plain.networks["generator"]
    noise, random, mode = training.noise.get_state(), torch.get_rng_state(), live.training
    score, again, final = (training.subject(purpose).samples for purpose in ("score", "score", "final"))
    assert score is not None
    assert again is not None
    assert final is not None
    assert score.shape == (100, 2)
    assert torch.equal(score, again)
    assert not torch.isclose(score, final).any()
    assert torch.equal(noise, training.noise.get_state())
    assert torch.equal(random, torch.get_rng_state())
    assert live.training is mode


def test_samples_are_drawn_in_evaluation_mode(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    """With batch statistics a sample would depend on its neighbours, and drawing would move the averages."""
    training = Training(toy({"training.ema": 0.0}), 0, tmp_path, toy_setup)
    training.play()
    live = training.plain.networks["generator"]
    before = [buffer.clone() for buffer in live.buffers()]
    one = training.generator.sample(1)
    assert all(torch.equal(a, b) for a, b in zip(before, live.buffers(), strict=True))
    assert one.shape == (1, 2)  # batch norm in training mode refuses a batch of one
    assert live.training


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("emd", [3.0, 2.0, 2.0, 2.5, 1.0, 1.5], [True, True, False, False, True, False]),
        ("coverage", [0.1, 0.5, 0.5, 0.4, 0.9, 0.2], [True, True, False, False, True, False]),
    ],
)
def test_the_best_so_far(
    metric: str, values: list[float], best: list[bool], toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    training = Training(toy({"objective.metric": metric}), 0, tmp_path, toy_setup)
    assert [training.improves({metric: value}) for value in values] == best


def test_the_seed_decides_weights_noise_and_batches(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    def weights(seed: int) -> Tensor:
        training = Training(toy(), seed, tmp_path, toy_setup)
        training.play()
        return torch.cat([w.detach().flatten() for w in training.generator.networks["generator"].parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.isclose(weights(0), weights(1)).all()
