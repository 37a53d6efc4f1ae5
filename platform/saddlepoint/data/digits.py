"""Handwritten digits: 1797 real images of 8x8 pixels that ship inside scikit-learn; nothing is downloaded.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (test part), UCI, 1998.
"""

import numpy as np
import torch

from saddlepoint.data.dataset import Dataset, halves
from saddlepoint.data.images import two_toned


def digits(seed: int = 0, binary: bool = False) -> Dataset:
    """898 training and 899 held-out images (1, 8, 8), grey levels 0..16 mapped to [-1, 1], with labels 0..9.

    The split is stratified by class and fixed by the seed. `binary`: levels above 8 become 1, others -1.
    """
    from sklearn.datasets import load_digits  # a second to import, which other data need not pay

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    images = torch.from_numpy((bunch.images / 8 - 1).astype(np.float32)).unsqueeze(1)
    if binary:
        images = two_toned(images)
    train, heldout = halves(len(labels), seed, labels)
    return Dataset.build(
        "digits",
        "image",
        images[train],
        images[heldout],
        train_labels=torch.from_numpy(labels[train]),
        heldout_labels=torch.from_numpy(labels[heldout]),
        classes=10,
    )
