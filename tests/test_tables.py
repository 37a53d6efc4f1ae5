"""The tables of docs/tables.md: what fails an aim, what a page says, and what the rows are trained with."""

import math
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from saddlepoint import Pipeline
from saddlepoint.data import load

FOLDER = Path(__file__).parents[1] / "benchmarks" / "tables"


@pytest.fixture
def module(monkeypatch):
    """`module("report")`: a module of the program, which is a folder and no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module


@pytest.fixture
def table(module):
    """One metric, three seeds of one row, and a baseline."""
    report, trainings = module("report"), module("trainings")
    results = {seed: trainings.Result({"fid": value}, 10.0) for seed, value in enumerate((19.0, 20.0, 24.0))}
    made = report.Table("T", (report.Column("FID", "fid", ".1f"), report.Column("HQ", "hq", ".0f", 100)), "About.")
    made.add("ours", trainings.Measured(results))
    made.add_scores("floor", {"fid": 4.0, "hq": 0.989})
    made.quote("theirs", "26.7 to 38.1")
    return made


def test_rows(table):
    assert [(row.name, row.cells, row.seconds) for row in table.ours] == [
        ("ours", ["21.0 ± 2.6", ""], "10"),  # mean and standard deviation of 19, 20, 24; no such metric
        ("floor", ["4.0", "99"], ""),
    ]
    assert table.others[0].cells == ["26.7 to 38.1", ""]
    assert "| ours | 21.0 ± 2.6 |  | 10 |" in table.markdown().splitlines()


def test_a_seed_that_diverged_shows_and_fails(table, module):
    report, trainings = module("report"), module("trainings")
    row = trainings.Measured({0: trainings.Result({"fid": 5.0}, 1.0), 1: trainings.Result({}, 1.0)})
    table.add("wild", row)
    assert table.ours[-1].cells == ["diverged", ""]
    assert math.isnan(row.median("fid"))
    for check in (report.at_least, report.at_most):
        assert check("FID", row.median("fid"), 25).verdict == "FAIL"


def test_aims_hold_at_their_bound(module):
    report = module("report")
    assert report.at_least("accuracy", 0.95, 0.95).passed
    assert not report.at_least("accuracy", 0.9499, 0.95).passed
    assert report.at_most("FID", 25.0, 25).passed
    assert not report.at_most("FID", 25.01, 25).passed


@pytest.mark.parametrize(("fid", "code"), [(21.0, 0), (30.0, 1)])
def test_the_page_is_written_and_a_missed_aim_is_the_exit_code(table, module, monkeypatch, tmp_path, fid, code):
    table.checks = [module("report").at_most("FID", fid, 25, ".1f")]
    main = program(monkeypatch)
    monkeypatch.setattr(main, "TABLES", {"one": lambda workers: table, "other": lambda workers: table})
    monkeypatch.setattr(main, "PAGE", tmp_path / "tables.md")

    monkeypatch.setattr(main.sys, "argv", ["tables", "one"])
    assert main.main() == code
    assert not main.PAGE.exists()  # some tables are no page

    monkeypatch.setattr(main.sys, "argv", ["tables"])
    assert main.main() == code
    page = main.PAGE.read_text()
    assert page.count("## T") == 2
    assert f"| FID: at most 25.0 | {fid} | {'FAIL' if code else 'PASS'} |" in page


def program(monkeypatch):
    description = spec_from_file_location("program", FOLDER / "__main__.py")
    found = module_from_spec(description)
    description.loader.exec_module(found)
    return found


def test_defaults_are_those_of_the_space_for_as_many_moves(module):
    own, published = Pipeline.load("ring-wgan"), module("ring").as_many_moves("ring-wgan").load()
    assert published.hyperparameters() == (5e-5, 5e-5, 0.01)
    assert published.structure().n_critic == 5
    moves = own.training.rounds * (own.structure().n_critic + 1)
    assert 0 <= moves - published.training.rounds * 6 < 6


def test_baselines_of_the_digits(module):
    digits = module("digits")
    dataset = load("digits")
    made = digits.baselines(dataset, 898)
    assert {samples.shape for samples in made.values()} == {(898, 1, 8, 8)}
    assert all(samples.abs().max() <= 1 for samples in made.values())
    root = digits.root(dataset.train.flatten(1).double())
    torch.testing.assert_close(root @ root, dataset.train.flatten(1).double().T.cov(), atol=1e-9, rtol=0)
    pixels = dataset.train[:, 0, 4, 4]
    gaussian, noise = made["Gaussian of the pixels"][:, 0, 4, 4], made["uniform noise"][:, 0, 4, 4]
    assert gaussian.mean() == pytest.approx(float(pixels.mean()), abs=0.1)
    assert noise.mean() == pytest.approx(0, abs=4 * (1 / 3 / 898) ** 0.5)
    assert noise.std() == pytest.approx(3**-0.5, abs=0.03)
