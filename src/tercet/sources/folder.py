"""A model folder in transformers' layout, or of a CLIP in open_clip's, checked: what `resolve` hands out.

Refused by name: pickled weights (they run code when opened), shards outside the folder, adapters (transformers would
follow them to another model), weights that are quantized already. `auto_map` names Python files of the folder; it is
dropped from the config, and nothing here ever runs them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tercet import families
from tercet.artifact import strict_json
from tercet.errors import FormatError, ModelError
from tercet.program import Model
from tercet.sources.open_clip import config as open_clip
from tercet.sources.open_clip.names import Renamed, renamed
from tercet.sources.tensors import Tensors
from tercet.sources.views import differs, views

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Source", "from_folder", "sha256", "weight_files"]

MAX_JSON = 64_000_000
TEXTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    open_clip.CONFIG, "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
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
        stored = _stored(self.folder)
        return views(self.model, stored, stored.shapes)

    def check(self) -> None:
        """What can be known before any work: the model is supported, its tensors are all there and fit, and the
        tokenizer has no more tokens than the model has rows. Raises ModelError or FormatError, one line."""
        self.tensors()
        tokenizer = self.folder / "tokenizer.json"
        largest = largest_id(strict_json.parse(_bytes(tokenizer), str(tokenizer))) if tokenizer.is_file() else -1
        if largest >= self.model.text.vocab_size:
            raise FormatError(
                f"{tokenizer}: it has ids up to {largest}, the model {self.model.text.vocab_size} rows of them; "
                "resize the model's embedding for the added tokens, or take the model's own tokenizer"
            )

    @property
    def in_transformers(self) -> bool:
        """Whether transformers has a class for it: not for what open_clip stores."""
        return not _is_open_clip(self.folder)

    def pretrained(self) -> PreTrainedModel:
        """The transformers model: float32, eval mode. Raises ModelError where transformers cannot make it."""
        from tercet.sources.hf import load

        multimodal = self.config.get("model_type") in families.MULTIMODAL
        return load(self.folder, "multimodal" if multimodal else self.model.kind)

    def tokenizer_files(self) -> dict[str, bytes]:
        """tokenizer.json and tokenizer_config.json, the latter with the chat template folded in; of a model of pictures
        and texts `preprocessor()` too, as preprocessor_config.json."""
        settings = _json(self.folder / "tokenizer_config.json", {})
        settings.pop("auto_map", None)
        template = self.folder / "chat_template.jinja"
        if template.is_file():
            settings["chat_template"] = _bytes(template).decode("utf-8", "replace")
        tokenizer = self.folder / "tokenizer.json"
        if not tokenizer.is_file():
            raise FormatError(
                f"{self.folder}: no tokenizer.json; save the tokenizer in the fast format beside the model"
            )
        files = {"tokenizer.json": _bytes(tokenizer), "tokenizer_config.json": _text(settings)}
        if self.model.picture:
            files["preprocessor_config.json"] = _text(self.preprocessor())
        return files

    def preprocessor(self) -> dict[str, Any]:
        """How pictures are prepared, as `tercet.runtime.pictures.preprocess` reads it.

        Raises FormatError where the folder does not say, ModelError where it says what open_clip does not know.
        """
        made = _preprocessor(self.folder, self.config)
        if not made:
            raise FormatError(f"{self.folder}: no preprocessor_config.json; copy the original model's into the folder")
        return made

    def generation(self) -> dict[str, Any]:
        """{"eos_token_id": [ids that end a generation]}, plus bos_token_id where there is one."""
        text = self.config.get("text_config")  # of a model that also sees pictures
        own = {**text, **self.config} if self.model.kind == "text" and isinstance(text, dict) else self.config
        settings = {**own, **_json(self.folder / "generation_config.json", {})}
        eos = settings.get("eos_token_id")
        made: dict[str, Any] = {"eos_token_id": [eos] if isinstance(eos, int) else list(eos or [])}
        if isinstance(settings.get("bos_token_id"), int):
            made["bos_token_id"] = settings["bos_token_id"]
        return made


def from_folder(folder: Path, name: str, origin: dict[str, Any], fingerprint: str | None = None) -> Source:
    """Check `folder` and describe it; the fingerprint is that of its files unless the caller knows better."""
    config = _config(folder)
    config.pop("auto_map", None)
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder}: an adapter, not a whole model; merge it into its base model and save that")
    if config.get("quantization_config"):
        raise ModelError(f"{folder}: its weights are quantized already; start from the original model")
    if not isinstance(config.get("model_type"), str):
        raise FormatError(f"{folder / 'config.json'}: no model_type; this is not a transformers model")
    files = weight_files(folder)
    Tensors(files)  # every header is checked here, once, before anything else may open the files
    if _is_open_clip(folder):
        _stored(folder)
    config = _tying(folder, config)
    known = fingerprint or _fingerprint(folder, files)
    return Source(name, folder, config, known, {**origin, "sha256": known})


def _tying(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The config without a tied head where the checkpoint has a head of its own: as transformers loads it."""
    try:
        described = families.model(config)
    except ModelError:
        return config  # told, by name, to whoever wants the model
    stored = _stored(folder)
    if described.kind != "text" or not differs(described, stored, stored.shapes):
        return config
    text = config.get("text_config")
    inner = {"text_config": {**text, "tie_word_embeddings": False}} if isinstance(text, dict) else {}
    return {**config, **inner, "tie_word_embeddings": False}


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files. Raises FormatError: none, only pickles, or an index that leaves the folder."""
    if _is_open_clip(folder):
        found = [name for name in open_clip.WEIGHTS if (folder / name).exists()]
        if found:
            return [_inside(folder, found[0])]
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.exists() or not index.exists():
        names = ["model.safetensors"]
    else:
        shards = _json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(n, str) for n in shards.values()):
            raise FormatError(f"{index}: no weight_map of names to files; get the file again")
        names = sorted(set(shards.values()))
    if names == ["model.safetensors"] and not single.exists():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES) if folder.is_dir() else []
        if pickles:
            raise FormatError(f"{folder / pickles[0]}: pickled weights are refused, they can run code; use safetensors")
        raise FormatError(
            f"{folder}: no model.safetensors and no index of shards; give a folder with safetensors weights"
        )
    return [_inside(folder, name) for name in names]


def _inside(folder: Path, name: str) -> Path:
    """`name` in `folder`, refused where it is a path or a link that leads out of it.

    The hub's cache is made of links from snapshots/<revision>/ to blobs/: there, the model's cache folder is the limit.
    """
    if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
        raise FormatError(f"{folder}: shard name {name[:80]!r} is not a plain .safetensors file name; do not trust it")
    resolved, limit = (folder / name).resolve(), folder.resolve()
    if limit.parent.name == "snapshots":
        limit = limit.parent.parent
    if not resolved.is_relative_to(limit):
        raise FormatError(f"{folder / name}: a link that leads out of the folder; copy the file into it")
    if not resolved.is_file():
        raise FormatError(f"{folder / name}: the index names this shard, but it is not there; get the model again")
    return folder / name


def _fingerprint(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in [*(folder / name for name in TEXTS), *files]:
        if path.is_file():
            digest.update(path.name.encode() + bytes.fromhex(sha256(path)))
    return digest.hexdigest()


def _is_open_clip(folder: Path) -> bool:
    """Whether open_clip's config is the one to go by: transformers', where there is one, is."""
    return (folder / open_clip.CONFIG).is_file() and "model_type" not in _json(folder / "config.json", {})


def _config(folder: Path) -> dict[str, Any]:
    if _is_open_clip(folder):
        return open_clip.config(_json(folder / open_clip.CONFIG))
    return _json(folder / "config.json")


def _stored(folder: Path) -> Tensors | Renamed:
    """Tensors by transformers' names."""
    files = weight_files(folder)
    return renamed(Tensors(files), str(files[0])) if _is_open_clip(folder) else Tensors(files)


def _preprocessor(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What preprocessor_config.json says; newer transformers write it into processor_config.json. Empty: nothing."""
    if _is_open_clip(folder):
        return open_clip.preprocessor(_json(folder / open_clip.CONFIG), families.model(config).pixels.size)
    own = _json(folder / "preprocessor_config.json", {})
    if not own:
        own = _json(folder / "processor_config.json", {}).get("image_processor", {})
    if not isinstance(own, dict):
        raise FormatError(f"{folder / 'processor_config.json'}: image_processor is no object; get the file again")
    own.pop("auto_map", None)
    return own


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises FormatError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
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


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"{path}: larger than {MAX_JSON} bytes; this is no file of a model's settings")
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}; give a folder in transformers' layout") from None


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.exists():
        return dict(default)
    value = strict_json.parse(_bytes(path), str(path))
    if not isinstance(value, dict):
        raise FormatError(f"{path}: not a JSON object; get the file again")
    return value
