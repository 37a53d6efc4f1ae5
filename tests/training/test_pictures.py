"""Pictures: right pixels in the right places."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from saddlepoint.training.pictures import SIDE, _tiled, grid, picture, scatter


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def test_a_grid_reads_row_by_row_from_black_to_white() -> None:
    samples = torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, 0.0, 1.0, -3.0)])
    image = pixels(grid(samples))
    scale = SIDE // (2 * 9 + 1)  # two images of 8 and three lines of 1
    assert image.shape == (19 * scale, 19 * scale, 3)

    def at(row: int, column: int) -> int:
        return int(image[(1 + 9 * row + 4) * scale, (1 + 9 * column + 4) * scale, 0])

    assert [at(0, 0), at(0, 1), at(1, 0), at(1, 1)] == [0, 128, 255, 0]  # beyond black is black
    assert (image[0] == 255).all()  # the frame


@pytest.mark.parametrize(("n", "columns", "channels"), [(64, 8, 1), (7, 3, 3), (5, 8, 3), (2, 1, 1)])
def test_images_are_tiled_as_torchvision_does_it(n: int, columns: int, channels: int) -> None:
    images = torch.rand(n, channels, 4, 6)
    expected = make_grid(images, nrow=columns, padding=1, pad_value=1.0)  # which makes three channels of one
    assert torch.equal(_tiled(images, min(columns, n)).expand_as(expected), expected)


def test_a_worker_does_not_import_what_it_does_not_need() -> None:
    """Each of these takes a second or more, in every worker of every sweep."""
    program = "import sys, saddlepoint.workflows.trial; print([n for n in ('torchvision', 'torch._dynamo', 'mlflow', "
    program += "'ray', 'optuna', 'sklearn', 'pandas') if n in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_colours_stay_in_their_channels() -> None:
    red = torch.stack([torch.ones(8, 8), -torch.ones(8, 8), -torch.ones(8, 8)])[None]
    image = pixels(grid(red))
    assert image[image.shape[0] // 2, image.shape[1] // 2].tolist() == [255, 0, 0]


def test_points_lie_where_they_are_on_the_datas_window() -> None:
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    image = pixels(scatter(torch.tensor([[1.0, -1.0], [50.0, 50.0]]), data))  # one point out of the window
    assert image.shape == (SIDE, SIDE, 3)
    blue = np.argwhere((image == (31, 90, 180)).all(axis=2))
    row, column = blue.mean(axis=0) / SIDE
    # the window is 15 % wider than the data on each side: 1 lies at (2 + 0.3) / 2.6 of it, -1 at 0.3 / 2.6
    assert np.allclose([row, column], [2.3 / 2.6, 2.3 / 2.6], atol=0.01)
    grey = np.argwhere((image == 190).all(axis=2)) / SIDE
    assert np.allclose(grey[0], [0.3 / 2.6, 2.3 / 2.6], atol=0.01)
    assert np.allclose(grey[-1], [2.3 / 2.6, 0.3 / 2.6], atol=0.01)


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert picture(torch.zeros(4, 3), torch.zeros(4, 3)) is None
    assert picture(torch.zeros(4, 2, 8, 8), torch.zeros(4, 2, 8, 8)) is None
    assert picture(torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)) is not None
    assert picture(torch.zeros(4, 2), torch.randn(4, 2)) is not None
