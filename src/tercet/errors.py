"""What Tercet raises: one type for each area, one line a message: what was wrong, where, what to do."""


class TercetError(Exception):
    """Base of all errors a user can cause; the command line prints it as one line and exits with 1."""


class FormatError(TercetError):
    """A file (safetensors, GGUF, config.json, tokenizer) is damaged, hostile or not what it claims to be."""


class ModelError(TercetError):
    """A model or one of its features is not supported, or does not fit its weights."""


class RecipeError(TercetError):
    """A recipe is not valid, or does not fit the model it is applied to."""


class QuantizeError(TercetError):
    """Weights that cannot be quantized as asked: not finite, too large, or a width the group does not divide."""


class EngineError(TercetError):
    """The engine was asked for something it cannot do: context exceeded, unknown instruction set, non-finite input."""


class StorageError(TercetError):
    """A file or folder cannot be written: disk full, I/O error, no permission, or something else is there already."""


class TrainError(TercetError):
    """Training cannot begin or go on: a loss that is not finite, nothing to train, or a checkpoint of another run."""
