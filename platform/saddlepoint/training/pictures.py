"""What a person looks at: samples as a grid, points over the data. Each gives the bytes of a PNG."""

import io
import math

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

BLUE = (31, 90, 180)
COLOURS = [  # matplotlib's tab10
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
]  # fmt: skip
SIDE = 512  # a grid is enlarged to about this many pixels, in whole steps, so that small digits can be seen


def grid(samples: Tensor, columns: int | None = None) -> bytes:
    """Images (n, C, H, W) in [-1, 1], n <= 64 or so, row by row: in a square, or in so many columns."""
    columns = columns or math.ceil(math.sqrt(len(samples)))
    pixels = _levels(_tiled(samples.detach().float().cpu().clamp(-1, 1), min(columns, len(samples))))
    scale = max(1, SIDE // max(pixels.shape[:2]))
    return _png(np.kron(pixels, np.ones((scale, scale, 1), dtype=np.uint8)))


def image(sample: Tensor) -> bytes:
    """One image (C, H, W) in [-1, 1], as it is: pixel by pixel, without a frame."""
    return _png(_levels(sample.detach().float().cpu().clamp(-1, 1)))


def scatter(points: Tensor, data: Tensor, labels: Tensor | None = None) -> bytes:
    """Points (n, 2) in blue, or each label's in a colour, over the data (m, 2) in grey, on the data's own window."""
    low, high = data.amin(0).cpu().double().numpy(), data.amax(0).cpu().double().numpy()
    margin = 0.15 * (high - low)
    window = [(low[axis] - margin[axis], high[axis] + margin[axis]) for axis in (0, 1)]
    pixels = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    clouds = [(data, (190, 190, 190)), (points, BLUE)]
    if labels is not None:
        clouds[1:] = [
            (points[labels == label], COLOURS[label % len(COLOURS)]) for label in sorted(set(labels.tolist()))
        ]
    for cloud, colour in clouds:
        x, y = cloud.detach().cpu().double().numpy()[:, :2].T
        hit, *_ = np.histogram2d(-y, x, bins=SIDE // 2, range=[[-window[1][1], -window[1][0]], window[0]])
        pixels[np.kron(hit > 0, np.ones((2, 2), dtype=bool))] = colour
    return _png(pixels)


def picture(samples: Tensor, data: Tensor, labels: Tensor | None = None) -> bytes | None:
    """The picture that fits the samples' shape, or None if there is no plain way to look at it."""
    if samples.dim() == 4 and samples.shape[1] in (1, 3):
        return grid(samples[:64])
    if samples.dim() == 2 and samples.shape[1] == 2:
        return scatter(samples, data[:10_000], labels)
    return None


def _tiled(images: Tensor, columns: int) -> Tensor:
    """(n, C, H, W) -> (C, rows of them, columns of them), in white frames of one pixel.

    torchvision's `make_grid` with a padding of 1, without torchvision: to import it takes a worker as long as torch.
    """
    framed = pad(images, (0, 1, 0, 1), value=1.0)
    whole = pad(framed, (0, 0, 0, 0, 0, 0, 0, -len(images) % columns), value=1.0)
    tiles = whole.reshape(-1, columns, *whole.shape[1:]).permute(2, 0, 3, 1, 4)  # (C, rows, H, columns, W)
    return pad(tiles.flatten(3, 4).flatten(1, 2), (1, 0, 1, 0), value=1.0)


def _levels(picture: Tensor) -> np.ndarray:
    return ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()
