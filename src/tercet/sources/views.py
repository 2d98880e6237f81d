"""Tensors as our programs take them: views of what a checkpoint stores.

    our name -> where the family says it is (`Model.original`) -> where this checkpoint has that -> rows, factor, shape

A convolution's kernel becomes the matrix of the same bytes, a probe or a scale a vector; q, k and v that are one matrix
become three. Nothing is copied but what changes its order or its values.

What transformers loads is loaded: names behind `_orig_mod.` or `module.`, without the model's own prefix, and a tied
matrix stored under its other name. What is missing, misshapen or read by nobody is refused before any tensor is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError
from tercet.program import Model, Stored

__all__ = ["differs", "views"]

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
WRAPPERS = re.compile(r"^(?:(?:_orig_mod|module)\.)+")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Buffers that follow from the config; older versions stored them.
BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|attention\.(bias|masked_bias)|embeddings\.position_ids)|position_ids")


def views(model: Model, stored: Mapping[str, Floats], shapes: Shapes | None = None) -> Mapping[str, Floats]:
    """Each tensor a model reads, by our name and in our shape, looked up when it is asked for.

    Args:
        stored: by the checkpoint's names.
        shapes: of all of them; by default those of `stored`, which reads it.

    Raises FormatError: a tensor is missing, has another shape, or is read by nobody.
    """
    return _Views(model, stored, {name: stored[name].shape for name in stored} if shapes is None else shapes)


def differs(model: Model, stored: Mapping[str, Floats], shapes: Shapes) -> bool:
    """Whether the checkpoint of a model whose head is tied has another head."""
    names = _Names(model, shapes)
    if HEAD in model.weights or not (head := names.head()):
        return False
    embedding = names.find(EMBEDDING, model.weights[EMBEDDING].shape).name
    return embedding != head and not np.array_equal(stored[head], stored[embedding])


@dataclass(frozen=True)
class _Place:
    """Where a tensor is in this checkpoint, and its shape among ours."""

    stored: Stored
    shape: tuple[int, ...]


class _Views(Mapping[str, Floats]):
    def __init__(self, model: Model, stored: Mapping[str, Floats], shapes: Shapes) -> None:
        self._stored = stored
        names = _Names(model, shapes)
        self._places = {name: names.place(name, weight.shape) for name, weight in model.weights.items()}
        names.refuse_unread({place.stored.name for place in self._places.values()})

    def __getitem__(self, name: str) -> Floats:
        place = self._places[name]
        where, shape = place.stored, place.shape
        if not where.name:
            return np.full(shape, where.factor, np.float32)
        values = self._stored[where.name].reshape(where.count or shape[0], *shape[1:])
        if where.rows is not None:
            values = values[where.rows]
        return values if where.factor == 1 else values * np.float32(where.factor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Names:
    """Finds where a checkpoint has what a family names; `known` maps names without wrappers to stored ones."""

    def __init__(self, model: Model, shapes: Shapes) -> None:
        self.model, self.shapes = model, shapes
        self.known = {WRAPPERS.sub("", name, count=1): name for name in shapes}
        self.root = self._root()

    def _root(self) -> str:
        """The first prefix under which the model's first tensor with a prefix of its own is there."""
        original = self.model.original
        for ours in self.model.weights:
            name = original.tensors[ours].name if ours in original.tensors else ours
            if name.startswith("model.") and ours != EMBEDDING:
                for root in original.roots:
                    if root + name.removeprefix("model.") in self.known:
                        return root
        return original.roots[0]

    def place(self, name: str, shape: tuple[int, ...]) -> _Place:
        """Where a tensor of this shape is. Raises FormatError where it is not, or has another."""
        where = self.find(name, shape)
        if where.name:
            found, wanted = self.shapes[where.name], (where.count or shape[0], *shape[1:])
            lies = len(found) == len(wanted) == 2 and found != wanted  # its values are as many, but on their side
            if lies or math.prod(found) != math.prod(wanted):
                raise FormatError(f"{where.name} is {list(found)}; the config says {list(wanted)}; get the model again")
        return _Place(where, shape)

    def refuse_unread(self, read: set[str]) -> None:
        """Raises FormatError for tensors that count and that nobody reads."""
        model = self.model
        tied = () if HEAD in model.weights else self._heads()
        unread = [
            name
            for plain, name in sorted(self.known.items())
            if name not in read
            and not (plain in tied or BUFFERS.fullmatch(plain) or plain.startswith(model.original.beside))
        ]
        if unread:
            raise FormatError(
                f"{len(unread)} tensors that no {model.family} model reads, such as {unread[0][:80]!r}; the config "
                "does not fit the weights, or this variant is not supported"
            )

    def head(self) -> str:
        """What the checkpoint calls its head; "" where it has none."""
        return next((self.known[name] for name in self._heads() if name in self.known), "")

    def _heads(self) -> tuple[str, ...]:
        return self.model.original.tensors.get(HEAD, Stored(HEAD)).name, HEAD, f"language_model.{HEAD}"

    def find(self, name: str, shape: tuple[int, ...]) -> Stored:
        where = self.model.original.tensors.get(name, Stored(name))
        if not where.name:
            return where
        for candidate in self._candidates(name, where.name):
            if candidate in self.known:
                return replace(where, name=self.known[candidate])
        module, _, parameter = name.rpartition(".")
        before, _, part = module.rpartition(".")
        fused = self.known.get(f"{before}.in_proj_{parameter}")  # nn.MultiheadAttention's
        if part in THIRDS and fused is not None:
            first = THIRDS[part] * shape[0]
            return Stored(fused, slice(first, first + shape[0]), 3 * shape[0])
        raise FormatError(f"the model has no tensor {where.name}; it is incomplete, get it again")

    def _candidates(self, ours: str, name: str) -> Iterator[str]:
        """Where a tensor may be; that of a tied head under either name."""
        yield self._rooted(name)
        if ours == HEAD or (ours == EMBEDDING and HEAD not in self.model.weights):
            yield from self._heads()

    def _rooted(self, name: str) -> str:
        return self.root + name.removeprefix("model.") if name.startswith("model.") else name
