"""Several processes that play one training have the numbers of one with the whole batch: float64, to 1e-10.

The processes are this file, run as a program: a team over gloo, without Ray. They play each case once, once with a
checkpoint in its middle, and the test compares.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from saddlepoint.data import Dataset
from saddlepoint.games import Batch, Game, Optimizer, Player
from saddlepoint.spec import Pipeline
from saddlepoint.training.batches import Batches, StreamedBatches
from saddlepoint.training.plain import Plain
from saddlepoint.training.setup import Setup, setup
from saddlepoint.training.state import Training
from saddlepoint.training.statistics import shared_statistics
from saddlepoint.training.team import ALONE, Team, here, parts_of, rows_of

GAMES = ["gan", "wgan", "cgan", "cwgan", "cyclegan", "vae", "avb", "lsgan:game"]
ODD = {  # what averaging gradients by hooks gets wrong
    "batch norm in both": ("gan", {"networks.generator.norm": "batch", "networks.discriminator": {
        "factory": "odd:NormedCritic"}}),
    "a gradient in the loss": ("odd:game", {"networks.critic": {"factory": "odd:NormedCritic", "norm": False}}),
    "a gradient in the loss, through batch norm": ("odd:game", {"networks.critic": {
        "factory": "odd:NormedCritic"}}),
    "accumulated": ("wgan", {"training.accumulate": 4}),
    "accumulated, with a pool": ("cyclegan", {"training.accumulate": 2}),
    "dropout": ("wgan", {"networks.critic": {"factory": "odd:NormedCritic", "drop": 0.5}}),
}  # fmt: skip
CASES = [*GAMES, *ODD]
ROUNDS = 6
ODD_MODULE = """
from dataclasses import replace
import torch
from torch import nn
from saddlepoint.games import wgan

class NormedCritic(nn.Module):
    def __init__(self, sample_shape, norm: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sample_shape[0], 12, bias=not norm),  # its gradient is nothing but rounding, before a norm
            nn.BatchNorm1d(12) if norm else nn.Identity(),
            nn.Softplus(),
            nn.Dropout(drop),
            nn.Linear(12, 1),
        )

    def forward(self, x):
        return self.layers(x).squeeze(1)

Structure, Hyperparameters = wgan.Structure, wgan.Hyperparameters

def penalised_loss(nets, batch, z, h):
    loss, logs = wgan.critic_loss(nets, batch, z, h)
    x = batch.x.clone().requires_grad_(True)
    slope, = torch.autograd.grad(nets.critic(x).sum(), x, create_graph=True)
    return loss + 10 * (slope.norm(dim=1) - 1).square().mean(), logs

def game(s):
    plain = wgan.game(s)
    critic = replace(plain.players["critic"], loss=penalised_loss, project=None)
    return replace(plain, players={**plain.players, "critic": critic})
"""


def doubled(dataset: Dataset) -> Dataset:
    target = dataset.target and doubled(dataset.target)
    return replace(dataset, train=dataset.train.double(), heldout=dataset.heldout.double(), target=target)


def played(training: Training, rounds: int) -> dict[str, Any]:
    for _ in range(rounds):
        training.play()
    weights = torch.cat([w.detach().reshape(-1) for net in training.plain.networks.values() for w in net.parameters()])
    buffers = [b.double().reshape(-1) for net in training.plain.networks.values() for b in net.buffers()]
    return {"trace": training.take_trace(), "weights": weights, "buffers": torch.cat([*buffers, torch.zeros(1)])}


def play(cases: dict[str, Any], folder: Path, team: Team) -> dict[str, Any]:
    """What each case comes to, and what it comes to with a checkpoint in its middle, at this member."""
    found: dict[str, Any] = {}
    for name, content in cases.items():
        pipeline = Pipeline.parse(content)
        torch.set_default_dtype(torch.float32)
        ready = setup(pipeline)
        torch.set_default_dtype(torch.float64)
        shared = Setup(doubled(ready.dataset), ready.scorer, ready.device)
        place = folder / f"{team.size} {name.replace(':', ' ')}"
        training = Training(pipeline, 3, place, shared, team)
        drawing = torch.get_rng_state()  # what networks draw themselves: dropout
        found[name] = played(training, ROUNDS) | {"drawing": drawing}
        first = Training(pipeline, 3, place, shared, team)
        before = played(first, ROUNDS // 2)["trace"]
        first.save()
        second = Training(pipeline, 3, place, shared, team)
        assert second.load()
        resumed = played(second, ROUNDS - ROUNDS // 2)
        found[f"{name}, resumed"] = resumed | {"trace": before + resumed["trace"]}
    return found


def member(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
    torch.save(play(json.loads((folder / "cases.json").read_text()), folder, here()), folder / f"{size}-{rank}.pt")
    if size > 1:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def teams(game_in_small: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each member of a team of one, and of two, came to."""
    folder = tmp_path_factory.mktemp("teams")
    (folder / "odd.py").write_text(ODD_MODULE)
    sys.path.insert(0, str(folder))
    try:
        cases = {}
        for name in CASES:
            game, values = ODD.get(name, (name, {}))
            like = "wgan" if game.startswith("odd") else game
            content = game_in_small(like).content()
            content["game"]["name"] = game
            for key, value in values.items():
                section, *path = key.split(".")
                if len(path) == 1:
                    content[section] = {**content[section], path[0]: value}
                else:
                    content[section][path[0]] = {**content[section][path[0]], path[1]: value}
            cases[name] = Pipeline.parse(content).content()
    finally:
        sys.path.remove(str(folder))
    (folder / "cases.json").write_text(json.dumps(cases))
    here, paths = Path(__file__), os.pathsep.join([str(folder), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    members = [(0, 1), (0, 2), (1, 2)]
    running = [
        subprocess.Popen([sys.executable, str(here), str(rank), str(size), str(folder)], env=environment)
        for rank, size in members
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    return {f"{size}-{rank}": torch.load(folder / f"{size}-{rank}.pt", weights_only=True) for rank, size in members}


def distance(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs() / (1 + b.abs())).max().detach())


@pytest.mark.parametrize("name", [name for name in CASES if name != "dropout"])  # every member draws its own
def test_a_team_of_two_equals_one_with_the_whole_batch(name: str, teams: dict[str, Any]) -> None:
    alone, first, second = (teams[key][name] for key in ("1-0", "2-0", "2-1"))
    assert [round for round, _ in first["trace"]] == [2, 4, 6]
    assert torch.equal(first["weights"], second["weights"])  # bit for bit, or they would drift apart
    assert first["trace"] == second["trace"]
    assert distance(first["weights"], alone["weights"]) < 1e-10
    assert distance(first["buffers"], alone["buffers"]) < 1e-10
    for (_, told), (_, expected) in zip(first["trace"], alone["trace"], strict=True):
        assert told.keys() == expected.keys()
        assert told == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_a_team_that_goes_on_from_its_checkpoint_is_one_that_never_stopped(name: str, teams: dict[str, Any]) -> None:
    for rank in ("2-0", "2-1"):
        straight, resumed = teams[rank][name], teams[rank][f"{name}, resumed"]
        assert torch.equal(resumed["weights"], straight["weights"])
        assert torch.equal(resumed["buffers"], straight["buffers"])
        for (_, told), (_, expected) in zip(resumed["trace"], straight["trace"], strict=True):
            assert told == pytest.approx(expected, rel=1e-13, abs=1e-15)  # saving sums up what is logged, too


def test_the_first_draws_the_dropout_of_a_single_process_and_the_second_another(teams: dict[str, Any]) -> None:
    alone, first, second = (teams[key]["dropout"]["drawing"] for key in ("1-0", "2-0", "2-1"))
    assert torch.equal(first, alone)
    assert not torch.equal(second, first)


def test_halves_that_are_each_normalised_by_themselves_would_be_another_training() -> None:
    """Or the case above shows nothing: the statistics of half a batch move the loss by far more than 1e-10."""
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(3)
    x = torch.randn(8, 3, dtype=torch.float64)
    layer.double()
    assert distance(torch.cat([layer(x[:4]), layer(x[4:])]), layer(x)) > 0.01


def test_accumulating_is_the_whole_batch_to_rounding(game_in_small: Callable[..., Pipeline], tmp_path: Path) -> None:
    found = {}
    for parts in (1, 2, 8):
        pipeline = game_in_small("wgan", {"training.accumulate": parts})
        training = Training(pipeline, 0, tmp_path, setup(pipeline))
        found[parts] = played(training, ROUNDS)
    for parts in (2, 8):
        assert distance(found[parts]["weights"], found[1]["weights"]) < 2e-5  # RMSprop's first steps enlarge rounding
        assert not torch.equal(found[parts]["weights"], found[1]["weights"])  # it was summed in another order
        for (_, told), (_, expected) in zip(found[parts]["trace"], found[1]["trace"], strict=True):
            assert told == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_members_take_all_rows_between_them_and_none_twice() -> None:
    batch = {"a": torch.arange(12), "b": (torch.arange(24).view(12, 2), None), "c": [torch.arange(12.0)]}
    shares = [rows_of(batch, Team(rank, 3).rows(12)) for rank in range(3)]
    assert torch.equal(torch.cat([share["a"] for share in shares]), batch["a"])
    assert torch.equal(torch.cat([share["b"][0] for share in shares]), batch["b"][0])
    assert [share["b"][1] for share in shares] == [None] * 3
    assert all(len(share["c"][0]) == 4 for share in shares)
    assert [part["a"].tolist() for part in parts_of(batch, 12, 2)] == [list(range(6)), list(range(6, 12))]


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.ones(3)
    assert ALONE.average(tensor) is tensor
    assert ALONE.gather(tensor) is tensor
    assert ALONE.tell("x") == "x"
    assert ALONE.collect("x") == ["x"]
    assert here() == ALONE


def test_rows_of_data_that_stream_by_are_those_of_data_in_memory() -> None:
    """The stream below goes by in the order of the rows, so both sources can be told what to expect."""

    class Rows:
        fingerprint = "rows"

        def __len__(self) -> int:
            return 12

        def epoch(self, seed: int, start: int = 0) -> Any:
            yield torch.arange(float(start), 12), torch.arange(start, 12)

    rng = torch.Generator().manual_seed(0)
    for rank, expected in ((0, [0.0, 1.0, 4.0, 5.0]), (1, [2.0, 3.0, 6.0, 7.0])):
        rows = Team(rank, 2).rows(4)
        streamed = StreamedBatches(Rows(), 4, rng, torch.device("cpu"), rows)
        seen = [streamed(), streamed()]
        assert torch.cat([batch.x for batch in seen]).tolist() == expected
        assert torch.cat([batch.y for batch in seen if batch.y is not None]).tolist() == expected
    whole = Batches(torch.arange(12.0), None, 4, torch.Generator().manual_seed(5))
    halves = [
        Batches(torch.arange(12.0), None, 4, torch.Generator().manual_seed(5), Team(r, 2).rows(4)) for r in (0, 1)
    ]
    for _ in range(7):  # over the end of two epochs
        assert torch.equal(whole().x, torch.cat([half().x for half in halves]))


def test_what_is_averaged_is_what_steps() -> None:
    """A team whose mean is twice what this member has: every step is twice as long."""

    class Louder(Team):
        def average(self, tensor: Tensor) -> Tensor:
            return 2 * tensor

    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * x

    player = Player(
        ("g",), lambda nets, batch, z, h: (nets.g(batch.x).mean(), {}), Optimizer(torch.optim.SGD, lr=0.125)
    )
    game = Game({"g": player}, (("g",),), noise=lambda n, rng: None, sample=lambda nets, z, y: z, ships=("g",))
    for team, expected in ((ALONE, 1 - 0.125 * 3), (Louder(), 1 - 0.25 * 3)):
        net = Rate()
        Plain(game, {"g": net}, (), team=team).round(lambda: Batch(torch.full((2, 1), 3.0)), lambda: None)
        assert float(net.w.detach()) == expected


def test_batch_norm_of_a_team_has_the_layers_own_names_and_values() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4, affine=False)))
    network(torch.randn(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(5, 3)
    expected = network.eval()(x)
    shared = shared_statistics(network, Team(0, 2))
    assert shared.state_dict().keys() == before.keys()
    assert all(torch.equal(shared.state_dict()[name], value) for name, value in before.items())
    assert not any(type(layer) is nn.BatchNorm1d for layer in shared.modules())
    assert torch.equal(shared.eval()(x), expected)  # running statistics: nobody is asked


if __name__ == "__main__":
    member(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
