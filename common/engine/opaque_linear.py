"""Linear layers that a CPU library computes from weights in a form of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from typing import TypeGuard, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)

_layers: WeakValueDictionary[int, OpaqueLinear] = WeakValueDictionary()
_numbers = count()


class OpaqueLinear(nn.Module, ABC):
    """In place of an `nn.Linear`, for inference only: its weights must not change, and it cannot be copied.

    A compiler cannot hold the library's weights: to it the layer is one operator that cannot be looked into.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._number = next(_numbers)
        _layers[self._number] = self

    def forward(self, input: Tensor) -> Tensor:
        """[.., in] to [.., out]"""
        if torch.compiler.is_compiling():
            output: Tensor = torch.ops.polydraft.opaque_linear(input, self._number, self.out_features)
            return output
        return self.compute(input)

    @abstractmethod
    def compute(self, input: Tensor) -> Tensor:
        """The same, uncompiled."""


@torch.no_grad()
def replace_linear(
    model: ModelT, replacement: Callable[[nn.Linear], OpaqueLinear], wanted: Callable[[nn.Linear], bool]
) -> ModelT:
    """Put replacements in the places of those linear layers of `model` that are wanted; returns it.

    Layers on another device than a CPU, or in another dtype than float32, stay, and so do subclasses of `nn.Linear`.
    """
    holders = [module for module in model.modules() if not isinstance(module, nn.Linear)]
    for module in holders:  # so that nothing here keeps what was replaced
        for name, child in module.named_children():
            if _replaceable(child) and wanted(child):
                setattr(module, name, replacement(child))
    return model


def _replaceable(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _compute(input: Tensor, layer: int, width: int) -> Tensor:
    return _layers[layer].compute(input)


def _shape(input: Tensor, layer: int, width: int) -> Tensor:
    return input.new_empty(*input.shape[:-1], width)


_library = torch.library.Library("polydraft", "FRAGMENT")
_library.define("opaque_linear(Tensor input, int layer, int width) -> Tensor")
_library.impl("opaque_linear", _compute, "CompositeExplicitAutograd")
torch.library.register_fake("polydraft::opaque_linear", _shape, lib=_library)
