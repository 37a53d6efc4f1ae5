"""A pool of earlier fakes: Shrivastava et al. (2017), arXiv:1612.07828, section 2.3, as CycleGAN's authors wrote it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Until `size` images are held, each image is stored and comes back as it is. From then on, with probability 1/2,
    an image comes back as it is, or it takes the place of a random stored one, which comes back instead.

    The images of a batch pass one after another, so one may meet another of its own batch. What is drawn depends on
    the number of images alone. `rng` on the CPU spares a GPU the waiting.
    """

    def __init__(self, size: int, rng: torch.Generator) -> None:
        self.size, self.rng = size, rng
        self.images: Tensor | None = None  # (up to size, *X)

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """(B, *X) -> (B, *X), a tensor of its own."""
        batch, device = len(images), self.rng.device
        exchanged = torch.rand(batch, generator=self.rng, device=device).tolist()
        places = torch.randint(self.size, (batch,), generator=self.rng, device=device).tolist()
        held = images[:0] if self.images is None else self.images.to(images)
        free = min(self.size - len(held), batch)
        if free:
            held = torch.cat([held, images[:free]])
        answer = images.clone()
        for row in range(free, batch):
            if exchanged[row] > 0.5:
                answer[row] = held[places[row]]
                held[places[row]] = images[row]
        self.images = held
        return answer

    def state_dict(self) -> dict[str, Any]:
        return {"images": None if self.images is None else self.images.clone(), "rng": self.rng.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.images = None if state["images"] is None else state["images"].clone()
        self.rng.set_state(state["rng"])
