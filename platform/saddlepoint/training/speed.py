"""How a training is played faster with nearly the same numbers: `saddle doctor --parity` shows how nearly.

precision     float32: throughout. tf32: multiplications of float32 weights with mantissas of 10 bits, on NVIDIA GPUs
              from Ampere on; elsewhere it changes nothing. bfloat16: networks compute in bfloat16 (torch.autocast);
              weights, losses and optimisers stay float32, so no loss is scaled.
channels_last images and convolutions lie channels last in memory, as tensor cores want them.
compile       torch.compile: operations are fused. cuda_graphs: also recorded once and played back, which pays where
              networks are so small that starting their operations takes longer than these. A loss that takes a
              gradient inside cannot be compiled: torch has no second derivative of what it compiled.
accumulate    each move's batch passes in so many parts, whose gradients are averaged: less memory at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16"]
Compile = Literal["none", "default", "cuda_graphs"]
MODES = {"default": "default", "cuda_graphs": "reduce-overhead"}  # torch.compile's names


@dataclass(frozen=True)
class Speed:
    precision: Precision = "float32"
    channels_last: bool = False
    compile: Compile = "none"
    accumulate: int = 1

    def settle(self) -> None:
        """Sets what holds for the whole process. torch's own default lets convolutions use TF32; here one asks.

        By torch's older switches: whoever reads these (torch-fidelity's Inception) fails where the newer ones were set.
        """
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        if self.compile != "none":  # a warm worker meets many structures; after eight, torch would go on uncompiled
            limits: Any = import_module("torch._dynamo.config")
            limits.recompile_limit = limits.accumulated_recompile_limit

    def laid_out(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def called(self, network: nn.Module) -> Callable[..., Any]:
        """What the losses call; the network itself keeps the weights and their names."""
        call: Callable[..., Any] = network
        if self.compile != "none":
            call = torch.compile(network, mode=MODES[self.compile], dynamic=False)
        if self.precision != "bfloat16":
            return call

        def in_bfloat16(*inputs: Tensor) -> Any:
            with torch.autocast(inputs[0].device.type, torch.bfloat16):
                found = call(*inputs)
            return found.float() if isinstance(found, Tensor) else tuple(part.float() for part in found)

        return in_bfloat16

    def begin_move(self) -> None:
        """What the move before left in the memory of CUDA graphs may be written over from here on."""
        if self.compile == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


PLAIN = Speed()


def flat(tensor: Tensor, like: Tensor) -> Tensor:
    """One dimension, in the order in which `like` lies in memory."""
    return tensor.reshape(-1) if like.dim() != 4 else tensor.permute(_order(like)).reshape(-1)


def shaped(flat: Tensor, like: Tensor) -> Tensor:
    """The inverse: a view of `flat` with the shape of `like`, in its order in memory."""
    order = _order(like)
    inverse = [order.index(dim) for dim in range(like.dim())]
    return flat.view([like.shape[dim] for dim in order]).permute(inverse)


def _order(like: Tensor) -> list[int]:
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous():
        return [0, 2, 3, 1]
    return list(range(like.dim()))
