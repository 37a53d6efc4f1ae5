"""Who plays: factories of `nn.Module`s, ours by name or one's own by import path (`my_pkg.nets:Critic`).

A factory is called with its options from the pipeline and with those facts that its signature names:
`sample_shape` and `classes` of the data, and every `..._dim` of the game's structure (`z_dim`).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from torch import nn

from ..errors import SaddleError, UserError, unknown
from ..imports import resolve
from ..validation import explain
from . import conditional, dcgan, encoders, mlp, patchgan, resnet

__all__ = ["NETWORKS", "build", "find", "with_facts"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp_generator": mlp.Generator,
    "mlp_critic": mlp.Critic,
    "dcgan_generator": dcgan.Generator,
    "dcgan_critic": dcgan.Critic,
    "conditional_mlp_generator": conditional.MLPGenerator,
    "conditional_mlp_critic": conditional.MLPCritic,
    "conditional_dcgan_generator": conditional.DCGANGenerator,
    "conditional_dcgan_critic": conditional.DCGANCritic,
    "resnet_generator": resnet.Generator,
    "patchgan_discriminator": patchgan.Discriminator,
    "noise_encoder": encoders.NoiseEncoder,
    "basis_encoder": encoders.BasisEncoder,
    "gaussian_encoder": encoders.GaussianEncoder,
    "bernoulli_decoder": encoders.BernoulliDecoder,
    "adversary": encoders.Adversary,
}


def find(factory: str, key: str = "networks") -> Callable[..., nn.Module]:
    if factory in NETWORKS:
        return NETWORKS[factory]
    if ":" not in factory:
        raise unknown(f"{key}.factory", factory, [*NETWORKS, "my_module:my_network"])
    found = resolve(f"{key}.factory", factory)
    if not callable(found):
        raise UserError(f"{key}.factory: {factory!r} is no factory: it cannot be called")
    return cast(Callable[..., nn.Module], found)


def with_facts(
    factory: str, options: Mapping[str, Any], facts: Mapping[str, Any], key: str = "networks"
) -> dict[str, Any]:
    """The factory's whole arguments: the options of the pipeline and the facts that its signature names.

    Raises:
        UserError: an option that the signature lacks, that is a fact, or that its annotation does not allow.
    """
    parameters = _parameters(factory, key)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in options.items():
        if name in facts:
            fact = repr(facts[name])
            raise UserError(f"{key}.{name}: is no option; it follows from the data and the game: {fact}")
        if name in parameters:
            _check(key, name, value, parameters[name].annotation)
        elif not takes_any:
            raise unknown(f"{key}.{name}", name, [p for p in parameters if p not in facts])
    return {**{name: fact for name, fact in facts.items() if name in parameters}, **options}


def _parameters(factory: str, key: str) -> Mapping[str, inspect.Parameter]:
    function = find(factory, key)
    try:
        return inspect.signature(function, eval_str=True).parameters
    except NameError:  # an annotation that exists for type checkers only
        return inspect.signature(function).parameters
    except ValueError as error:  # a function written in C
        raise UserError(f"{key}.factory: {factory!r} has no signature; call it in a function of yours") from error


def _check(key: str, name: str, value: object, annotation: Any) -> None:
    """That an option suits its annotation; what is no plain type is the factory's own to judge."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return
    try:
        adapter = TypeAdapter(dict[str, annotation])
    except PydanticSchemaGenerationError:
        return
    try:
        adapter.validate_python({name: value})
    except ValidationError as error:
        raise explain(error, key, {name: value}) from None


def build(factory: str, options: Mapping[str, Any], key: str = "networks") -> nn.Module:
    """The network. `options` are its whole arguments, facts included (`with_facts`).

    Raises:
        UserError: the factory fails with these options, or gives no `nn.Module`.
    """
    try:
        network = find(factory, key)(**options)
    except SaddleError as error:
        raise type(error)(f"{key}: {error}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{key}: {factory} with {dict(options)} fails: {reason}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{key}.factory: {factory!r} gives {type(network).__name__}, not an nn.Module")
    return network
