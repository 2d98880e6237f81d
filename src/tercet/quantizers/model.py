"""Quantizers on a model: `quantize_` puts them on, `freeze` reads the ternary tensors off.

Tied weights (an embedding that is also the head) are one parameter under two names: both get the same quantizer, and
`freeze` lists the tensor once, under the name that comes first in the model. Nothing is changed before all is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tercet.errors import QuantizeError
from tercet.quantizers.base import Quantizer, QuantizerConfig
from tercet.quantizers.levels import Levels, check_weight
from tercet.tensor import TernaryTensor

__all__ = ["freeze", "quantize_", "quantized"]


def quantize_(
    model: nn.Module, configs: Mapping[str, QuantizerConfig], starts: Mapping[str, TernaryTensor] | None = None
) -> None:
    """Register a quantizer on each named tensor, in place; the model then computes with `alpha*T + gamma`.

    The weights become the quantizers' latent ones (`Quantizer.start`), in float32; `lrqat`'s are frozen. An
    `output_clip` is the program's to apply (`tercet.pipeline.output_clamp`).

    Args:
        configs: by full tensor name as in `state_dict`, such as "model.layers.0.mlp.up_proj.weight".
        starts: codes and scales to start from, from calibration, for some or all of the same names.

    Raises QuantizeError, and leaves the model as it was, where a name is not a matrix of the model, a group does not
    divide a width, a tensor is not finite, already quantized, or tied to one with another config.
    """
    chosen: dict[int, tuple[str, QuantizerConfig]] = {}
    for name, config in configs.items():
        weight = _find(model, name)
        try:
            check_weight(weight, config.group_size or "row")
        except QuantizeError as error:
            raise QuantizeError(f"{name}: {error}") from None
        first, other = chosen.setdefault(id(weight), (name, config))
        if other != config:
            raise QuantizeError(f"{name} and {first} are one tied weight; give them one config")
        _check_start(name, weight, (starts or {}).get(name))
    places = [
        (module, key, id(parameter))
        for module in model.modules()
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in chosen
    ]
    latents: dict[int, tuple[Quantizer, nn.Parameter]] = {}
    for module, key, weight_id in places:
        if weight_id not in latents:
            name, config = chosen[weight_id]
            quantizer, levels = config.build(), (starts or {}).get(name)
            latent = quantizer.start(getattr(module, key), None if levels is None else Levels.from_tensor(levels))
            latents[weight_id] = quantizer, nn.Parameter(latent, requires_grad=quantizer.trains_latent)
        quantizer, parameter = latents[weight_id]
        setattr(module, key, parameter)
        parametrize.register_parametrization(module, key, quantizer, unsafe=True)  # checked above


def _check_start(name: str, weight: Tensor, start: TernaryTensor | None) -> None:
    if start is not None and tuple(start.codes.shape) != tuple(weight.shape):
        raise QuantizeError(f"{name}: is {list(weight.shape)}, its start {list(start.codes.shape)}; calibrate it")


def quantized(model: nn.Module) -> Iterator[tuple[str, Quantizer, Tensor]]:
    """Each quantized weight once: the name it had before `quantize_`, its quantizer, its latent weight."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for key, chain in cast(nn.ModuleDict, module.parametrizations).items():
            quantizer = cast(parametrize.ParametrizationList, chain)[0]
            if not isinstance(quantizer, Quantizer):
                continue  # another's parametrization; it may have several originals
            if id(quantizer) not in seen:  # a latent weight may itself be computed, and another object each time
                seen.add(id(quantizer))
                yield f"{path}.{key}" if path else key, quantizer, cast(Tensor, chain.original)


def freeze(model: nn.Module) -> dict[str, TernaryTensor]:
    """The ternary tensor of every quantized weight, by the name it had before `quantize_`."""
    return {name: quantizer.freeze(latent) for name, quantizer, latent in quantized(model)}


def _find(model: nn.Module, name: str) -> Tensor:
    path, _, key = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise QuantizeError(f"{name}: the model has no such tensor; see its state_dict for the names") from None
    if parametrize.is_parametrized(module, key):
        raise QuantizeError(f"{name}: already parametrized; quantize a fresh model")
    weight = dict(module.named_parameters(recurse=False)).get(key)
    if weight is None:
        raise QuantizeError(f"{name}: the model has no such tensor; see its state_dict for the names")
    return weight
