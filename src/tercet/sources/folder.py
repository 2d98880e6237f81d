"""A model folder in transformers' layout, or of a CLIP in open_clip's, checked: what `resolve` hands out.

Refused by name: pickled weights (they run code when opened), shards outside the folder, adapters (transformers would
follow them to another model), weights that are quantized already. `auto_map` names Python files of the folder; it is
dropped from the config, and nothing here ever runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tercet import families
from tercet.artifact import ModelFolder, open_regular
from tercet.errors import FormatError, ModelError
from tercet.program import Model
from tercet.sources.generation import GENERATION, generation
from tercet.sources.gguf.convert import CHECKSUMS
from tercet.sources.open_clip import config as open_clip
from tercet.sources.open_clip.names import Renamed, renamed
from tercet.sources.tensors import Tensors
from tercet.sources.views import differs, views

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Source", "from_folder", "sha256"]

TEXTS = (
    "config.json", GENERATION, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    open_clip.CONFIG, "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Source:
    """A pretrained model in full precision.

    Attributes:
        name: what the user called it.
        folder: transformers' layout: config.json, *.safetensors, tokenizer.json, tokenizer_config.json; or open_clip's:
            open_clip_config.json, open_clip_model.safetensors and the same files of the tokenizer.
        config: the parsed config.json, without auto_map; what it would be, where it is open_clip's.
        fingerprint: SHA-256 of what the model is made from, hexadecimal.
        origin: where it came from, with the fingerprint: as written into a converted model's config.json, and what
            caches go by.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    fingerprint: str
    origin: dict[str, Any]

    @cached_property
    def model(self) -> Model:
        """What the config describes. Raises ModelError where it is not supported."""
        return families.model(self.config)

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        """float32 tensors by the names and in the shapes of `model.weights`, each read from the file when asked for."""
        stored = _stored(ModelFolder(self.folder))
        return views(self.model, stored, stored.shapes)

    def check(self) -> None:
        """What can be known before any work: the model is supported, its tensors are all there and fit, and the
        tokenizer has no more tokens than the model has rows. Raises ModelError or FormatError, one line."""
        self.tensors()
        files = ModelFolder(self.folder)
        largest = largest_id(files.json_if_there("tokenizer.json"))
        if largest >= self.model.text.vocab_size:
            raise FormatError(
                f"{files / 'tokenizer.json'}: ids up to {largest}, but the model has {self.model.text.vocab_size} "
                "rows; resize the model's embedding for the added tokens, or take the model's own tokenizer"
            )

    @property
    def in_transformers(self) -> bool:
        """Whether transformers has a class for it: not for what open_clip stores."""
        return not _is_open_clip(ModelFolder(self.folder))

    def pretrained(self) -> PreTrainedModel:
        """The transformers model: float32, eval mode. Raises ModelError where transformers cannot make it."""
        from tercet.sources.hf import load

        files = ModelFolder(self.folder)
        Tensors(_weight_files(files), _checksums(files)).verify()  # transformers reads the files itself
        multimodal = self.config.get("model_type") in families.MULTIMODAL
        return load(self.folder, "multimodal" if multimodal else self.model.kind)

    def tokenizer_files(self) -> dict[str, bytes]:
        """tokenizer.json and tokenizer_config.json, the latter with the chat template folded in; of a model of pictures
        and texts `preprocessor()` too, as preprocessor_config.json."""
        files = ModelFolder(self.folder)
        if not files.has("tokenizer.json"):
            raise FormatError(
                f"{self.folder}: no tokenizer.json; save the tokenizer in the fast format beside the model"
            )
        made = {
            "tokenizer.json": files.read("tokenizer.json"),
            "tokenizer_config.json": _text(self.tokenizer_settings()),
        }
        if self.model.picture:
            made["preprocessor_config.json"] = _text(self.preprocessor())
        return made

    def tokenizer_settings(self) -> dict[str, Any]:
        """tokenizer_config.json with the chat template folded in and, of open_clip's folders, how captions are cleaned.

        Raises FormatError, ModelError.
        """
        files = ModelFolder(self.folder)
        settings = files.json_if_there("tokenizer_config.json")
        settings.pop("auto_map", None)
        if files.has("chat_template.jinja"):
            settings["chat_template"] = files.text("chat_template.jinja")
        if _is_open_clip(files):
            settings["open_clip"] = open_clip.captions(files.json(open_clip.CONFIG))
        return settings

    def preprocessor(self) -> dict[str, Any]:
        """How pictures are prepared, as `tercet.runtime.pictures.preprocess` reads it.

        Raises FormatError where the folder does not say, ModelError where it says what open_clip does not know.
        """
        made = _preprocessor(ModelFolder(self.folder), self.config)
        if not made:
            raise FormatError(f"{self.folder}: no preprocessor_config.json; copy the original model's into the folder")
        return made

    def generation(self) -> dict[str, Any]:
        """{"eos_token_id": [ids that end a generation]}, plus bos_token_id and how to sample where the model says so.

        Raises FormatError, ModelError for values that are none.
        """
        text = self.config.get("text_config")  # of a model that also sees pictures
        own = {**text, **self.config} if self.model.kind == "text" and isinstance(text, dict) else self.config
        return generation(own, ModelFolder(self.folder).json_if_there(GENERATION))


def from_folder(folder: Path, name: str, origin: dict[str, Any], fingerprint: str | None = None) -> Source:
    """Check `folder` and describe it; the fingerprint is that of its files unless the caller knows better."""
    files = ModelFolder(folder)
    config = _config(files)
    config.pop("auto_map", None)
    if files.has("adapter_config.json"):
        raise ModelError(f"{folder}: an adapter, not a whole model; merge it into its base model and save that")
    if config.get("quantization_config"):
        raise ModelError(f"{folder}: its weights are quantized already; start from the original model")
    if not isinstance(config.get("model_type"), str):
        raise FormatError(f"{folder / 'config.json'}: no model_type; this is not a transformers model")
    weights = _weight_files(files)
    Tensors(weights)  # every header is checked here, once, before anything else may open the files
    if _is_open_clip(files):
        _stored(files)
    _check_texts(files)
    config = _tying(files, config)
    own = _fingerprint(files, [path.name for path in weights]) if fingerprint is None else fingerprint
    source = Source(name, folder, config, own, {**origin, "sha256": own})
    source.generation()
    return source


def _check_texts(files: ModelFolder) -> None:
    """Opens every small file now: transformers does not ask what it opens, and others would after all the work."""
    for name in TEXTS:
        if files.has(name):
            files.json(name) if name.endswith(".json") else files.text(name)


def _tying(files: ModelFolder, config: dict[str, Any]) -> dict[str, Any]:
    """The config without a tied head where the checkpoint has a head of its own: as transformers loads it."""
    try:
        described = families.model(config)
    except ModelError:
        return config  # told, by name, to whoever wants the model
    stored = _stored(files)
    if described.kind != "text" or not differs(described, stored, stored.shapes):
        return config
    text = config.get("text_config")
    inner = {"text_config": {**text, "tie_word_embeddings": False}} if isinstance(text, dict) else {}
    return {**config, **inner, "tie_word_embeddings": False}


def _weight_files(files: ModelFolder) -> list[Path]:
    """The model's safetensors files. Raises FormatError: none, only pickles, or an index that leaves the folder."""
    if _is_open_clip(files):
        found = [name for name in open_clip.WEIGHTS if files.has(name)]
        if found:
            return [files.file(found[0])]
    if files.has(WEIGHTS):
        return [files.file(WEIGHTS)]
    if files.has(INDEX):
        return [_shard(files, name) for name in _shards(files)]
    pickles = sorted(path.name for path in files.path.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise FormatError(f"{files / pickles[0]}: pickled weights are refused, they can run code; use safetensors")
    raise FormatError(f"{files.path}: no {WEIGHTS} and no index of shards; give a folder with safetensors weights")


def _shards(files: ModelFolder) -> list[str]:
    shards = files.json(INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise FormatError(f"{files / INDEX}: no weight_map of names to files; get the file again")
    return sorted(set(shards.values()))


def _shard(files: ModelFolder, name: str) -> Path:
    if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
        raise FormatError(
            f"{files.path}: shard name {name[:80]!r} is not a plain .safetensors file name; do not trust it"
        )
    if not files.has(name):
        raise FormatError(f"{files / name}: the index names this shard, but it is not there; get the model again")
    return files.file(name)


def _fingerprint(files: ModelFolder, weights: list[str]) -> str:
    digest = hashlib.sha256()
    for name in [*(name for name in TEXTS if files.has(name)), *weights]:
        digest.update(name.encode() + bytes.fromhex(files.sha256(name)))
    return digest.hexdigest()


def _is_open_clip(files: ModelFolder) -> bool:
    """Whether open_clip's config is the one to go by: transformers', where there is one, is."""
    return files.has(open_clip.CONFIG) and "model_type" not in files.json_if_there("config.json")


def _config(files: ModelFolder) -> dict[str, Any]:
    return open_clip.config(files.json(open_clip.CONFIG)) if _is_open_clip(files) else files.json("config.json")


def _stored(files: ModelFolder) -> Tensors | Renamed:
    """Tensors by transformers' names."""
    weights = _weight_files(files)
    tensors = Tensors(weights, _checksums(files))
    return renamed(tensors, str(weights[0])) if _is_open_clip(files) else tensors


def _checksums(files: ModelFolder) -> dict[str, int]:
    """CRC32C by tensor, of a model that was converted into the cache."""
    return files.json(CHECKSUMS) if CHECKSUMS in files.sums else {}


def _preprocessor(files: ModelFolder, config: dict[str, Any]) -> dict[str, Any]:
    """What preprocessor_config.json says; newer transformers write it into processor_config.json. Empty: nothing."""
    if _is_open_clip(files):
        return open_clip.preprocessor(files.json(open_clip.CONFIG), families.model(config).pixels.size)
    own = files.json_if_there("preprocessor_config.json")
    if not own:
        own = files.json_if_there("processor_config.json").get("image_processor", {})
    if not isinstance(own, dict):
        raise FormatError(f"{files / 'processor_config.json'}: image_processor is no object; get the file again")
    own.pop("auto_map", None)
    return own


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file. Raises FormatError where it is none, or cannot be read."""
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def largest_id(tokenizer: Any) -> int:
    """The largest id of a parsed tokenizer.json; -1 where it has none that could be read."""
    found = tokenizer if isinstance(tokenizer, dict) else {}
    model = found.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    ids: list[Any] = list(words.values()) if isinstance(words, dict) else [len(words or []) - 1]
    added = found.get("added_tokens")
    ids += [each.get("id") for each in added if isinstance(each, dict)] if isinstance(added, list) else []
    return max((each for each in ids if isinstance(each, int)), default=-1)


def _text(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()
