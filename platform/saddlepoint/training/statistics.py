"""Batch normalisation over a team: with the statistics of the whole batch, not of the rows that one member holds.

Ioffe & Szegedy (2015), arXiv:1502.03167. `torch.nn.SyncBatchNorm` is the same for CUDA alone, and its gradient has no
gradient of its own; a critic with a gradient penalty needs one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from .team import Team


class _Sum(Function):
    """The sum over all members, of a value that each of them goes on to use: its gradient is a sum, too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Sum.apply(gradients[0])


class TeamBatchNorm(_BatchNorm):
    """As the layer that it takes the place of, parameters, buffers and their names included."""

    team: Team

    @classmethod
    def of(cls, layer: _BatchNorm, team: Team) -> "TeamBatchNorm":
        new = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        new._parameters, new._buffers = layer._parameters, layer._buffers
        new.team = team
        return new.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        mean = self._mean(x.mean(axes))
        centred = x - mean.view(shape)
        variance = self._mean(centred.square().mean(axes))
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), self.team.size * x.numel() // x.shape[1])
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    def _mean(self, mine: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(mine)
        return total / self.team.size

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, n: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * (n / (n - 1))).to(self.running_var), share)


def shared_statistics(network: nn.Module, team: Team) -> nn.Module:
    """The network with each of its batch normalisations over the whole team; the same object, unless it is one."""
    if isinstance(network, _BatchNorm):
        return TeamBatchNorm.of(network, team)
    for name, child in network.named_children():
        setattr(network, name, shared_statistics(child, team))
    return network
