"""The parts of a recipe: rules, calibration, evaluation. Everything is frozen, and unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tercet.quantizers import AnyQuantizer

__all__ = [
    "Activations",
    "Calibrate",
    "ClipDistil",
    "Distil",
    "Divergence",
    "Evaluate",
    "Keep",
    "Precision",
    "Reconstruct",
    "Role",
    "Rotate",
    "Rule",
    "Settings",
    "TernaryFormat",
    "Train",
]

Keep = Literal["int8", "int4", "float16", "float32"]
Role = Literal["linear", "embedding", "head", "position"]
TernaryFormat = Literal["t2", "t19", "t5", "b1"]
Divergence = Literal["forward", "reverse", "cakld", "eakld"]
Activations = Literal["a16", "a8", "a4", "ternary"]
Precision = Literal["auto", "float32", "bfloat16"]
Optimizer = Literal["adamw", "sgd"]
Rotate = bool | Literal["folded"]


class Settings(BaseModel, frozen=True, extra="forbid"):
    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Rule(Settings, frozen=True):
    """What the matrices it matches become. The first rule of a recipe that matches a matrix decides.

    Attributes:
        match: a pattern (* ? [..]) on the full tensor name, such as "model.layers.0.*" or "*.down_proj.weight".
        role: "linear", "embedding", "head", "position" or several: the matrices it may match. Without it a quantizer
            matches linears only, so that "*" leaves the others alone, and `keep` matches all. Of towers, the embeddings
            are those of tokens and patches, the heads the projections behind the last block.
        quantizer: a name, or a name and its settings. Either this
        keep: or this: "int8", "int4", "float16" or "float32".
        format: how a quantizer's codes are stored, where it is not the recipe's `format`.
    """

    match: str = Field(default="*", min_length=1)
    role: Annotated[tuple[Role, ...], BeforeValidator(_listed)] | None = None
    quantizer: Annotated[AnyQuantizer, BeforeValidator(_named)] | None = None
    keep: Keep | None = None
    format: TernaryFormat | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Rule:
        if (self.quantizer is None) == (self.keep is None):
            raise ValueError("give either `quantizer` or `keep`")
        if self.keep is not None and self.format is not None:
            raise ValueError("`format` goes with `quantizer`; `keep` has a format of its own")
        return self

    @property
    def roles(self) -> tuple[Role, ...]:
        if self.role is not None:
            return self.role
        return ("linear",) if self.quantizer else ("linear", "embedding", "head", "position")


class Reconstruct(Settings, frozen=True):
    """Training a block, or two at a time, to give what the float model's blocks give (`tercet.calibrate.reconstruct`).

    Attributes:
        epochs: over the calibration's tokens, for each block.
        blocks: trained together: 1, or 2, the window that slides over the model.
        lr, scale_lr: highest rates of the latent weights, and of scales and norms.
        precision: "bfloat16" products, "float32", or "auto": bfloat16 where the hardware has it.
        seed: of the order of the windows.
    """

    epochs: int = Field(default=4, ge=1, le=1000)
    blocks: Literal[1, 2] = 1
    lr: float = Field(default=5e-4, ge=0)
    scale_lr: float = Field(default=2e-4, ge=0)
    precision: Precision = "auto"
    seed: int = Field(default=0, ge=0, lt=1 << 63)


class Calibrate(Settings, frozen=True):
    """Closed-form calibration, block by block.

    Attributes:
        tokens: how many the Hessians are made of.
        context: tokens a window; where `tokens` are fewer, they are one window.
        sweeps: rounds of coordinate descent on the codes after error feedback.
        correction: share of the way that weights move towards the float model's inputs, 0..1.
        residual: share of the residual stream's error that the matrices writing to it take on, 0..1.
        damping: added to the Hessian's diagonal, in units of its mean.
        seed: of what is drawn at random.
        text: "default" (cached articles), "generated" (by the model itself) or a text file.
        reconstruct: what the closed forms leave is trained away, block by block; None for closed forms alone.
    """

    tokens: int = Field(default=40960, ge=2)
    context: int = Field(default=512, ge=2)
    sweeps: int = Field(default=2, ge=0, le=100)
    correction: float = Field(default=0.75, ge=0, le=1)
    residual: float = Field(default=0.75, ge=0, le=1)
    damping: float = Field(default=0.01, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    text: str = Field(default="default", min_length=1)
    reconstruct: Reconstruct | None = None

    @property
    def window(self) -> int:
        """Tokens of a window."""
        return min(self.context, self.tokens)


class Distil(Settings, frozen=True):
    """What a student is compared with while it is trained; weights of 0 switch a part off.

    Attributes:
        divergence: between the logits of teacher and student (`tercet.train.losses`), times
        kl: this weight.
        ce: weight of the cross-entropy to the text itself. With all others 0 there is no teacher.
        off, hidden: weights of the cosine and the relative squared error of blocks' outputs (`tercet.train.features`).
        relations: weight of the attention relations of the last of `blocks`.
        blocks: indices that off, hidden and relations look at, negative ones from the end; None for all.
        teacher: "live" answers at each step; of a "stored" one the last hidden states are computed once, on the disk
            (2 * width bytes a token).
        top_k: of the teacher's logits, stored once instead; None takes whole logits.
        activations: what linears' inputs are quantized to while training; the engine runs a8.
        text: "default" (cached articles), "generated" (by the model itself) or a text file.
        tokens: of the text at most; None for all of it.
    """

    divergence: Divergence = "forward"
    kl: float = Field(default=1.0, ge=0)
    ce: float = Field(default=0.0, ge=0)
    off: float = Field(default=0.0, ge=0)
    hidden: float = Field(default=0.0, ge=0)
    relations: float = Field(default=0.0, ge=0)
    blocks: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    teacher: Literal["live", "stored"] = "live"
    top_k: int | None = Field(default=None, ge=1, le=1024)
    activations: Activations = "a8"
    text: str = Field(default="default", min_length=1)
    tokens: int | None = Field(default=None, ge=2)

    @property
    def has_teacher(self) -> bool:
        return any((self.kl, self.off, self.hidden, self.relations))

    @model_validator(mode="after")
    def _anything_to_learn(self) -> Distil:
        if not (self.has_teacher or self.ce):
            raise ValueError("all weights are 0: nothing would be learnt")
        if self.top_k and (self.divergence != "forward" or not self.kl or self.off or self.hidden or self.relations):
            raise ValueError("`top_k` keeps logits only: it goes with the forward divergence and without features")
        if self.teacher == "stored" and (self.off or self.hidden or self.relations):
            raise ValueError("a stored teacher has no features of its blocks: `teacher: live` goes with those")
        return self


class ClipDistil(Settings, frozen=True):
    """What both towers of a model of pictures and texts are compared with; weights of 0 switch a part off.

    The teacher is the model in floating point; what it makes of each picture and text is computed once, except for
    `off`, which needs it live. Terms and their weights: `tercet.train.clip_losses`.

    Attributes:
        kind: "clip" tells it from a language model's `Distil`.
        task: weight of the contrastive loss of the student's own pictures and texts.
        fd: of the squared distance between the student's embeddings and the teacher's; 3.9 is CLIP-KD's 2000 of the
            mean square at 512 columns. It alone reads unpaired pictures and texts too.
        icl: of the contrastive loss of one side's pictures with the other's texts.
        ckd: of the divergence of similarities within the batch.
        off: of the cosine of blocks' outputs.
        activations: what linears' inputs are quantized to while training; the engine runs a8.
    """

    kind: Literal["clip"]
    task: float = Field(default=1.0, ge=0)
    fd: float = Field(default=4.0, ge=0)
    icl: float = Field(default=0.0, ge=0)
    ckd: float = Field(default=0.0, ge=0)
    off: float = Field(default=0.0, ge=0)
    activations: Activations = "a8"

    @property
    def has_teacher(self) -> bool:
        return any((self.fd, self.icl, self.ckd, self.off))

    @model_validator(mode="after")
    def _anything_to_learn(self) -> ClipDistil:
        if not (self.task or self.has_teacher):
            raise ValueError("all weights are 0: nothing would be learnt")
        return self


class Evaluate(Settings, frozen=True):
    """Perplexity, KL and top-1 agreement with the original, over windows that do not overlap.

    Attributes:
        tokens: how many are evaluated; context: tokens a window.
        text: "default" (the held-out articles) or a text file.
    """

    tokens: int = Field(default=4096, ge=2)
    context: int = Field(default=512, ge=2)
    text: str = Field(default="default", min_length=1)

    @model_validator(mode="after")
    def _window_fits(self) -> Evaluate:
        if self.tokens < self.context:
            raise ValueError(f"{self.tokens} tokens do not fill one window of context {self.context}")
        return self


class Train(Settings, frozen=True):
    """How a task is trained: warm-up, then a cosine to 0.

    Attributes:
        optimizer: "adamw", or "sgd" without momentum.
        steps: of the optimizer; batch: windows of one pass, over all processes; accumulation: passes a step.
        context: tokens a window, at which a text is cut.
        lr, scale_lr, norm_lr: highest rates of the weights, of quantizers' own parameters, and of vectors (norms,
            biases).
        weight_decay: of the weights. clip: the largest norm that all gradients together may have.
        warmup: share of the steps.
        seed: of the order of the windows, and of what else is drawn.
        precision: "bfloat16" products, in "float32" as the weights are, or "auto": bfloat16 where the hardware has it.
        gradient_checkpointing: blocks are computed again in the backward pass: a third slower, with less memory.
        checkpoint_every: steps, and after the last; None for none but when it is stopped: short runs are made again.
        evaluate_every: steps, and before the first and after the last.
    """

    optimizer: Optimizer = "adamw"
    steps: int = Field(ge=1)
    batch: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    context: int = Field(default=512, ge=2)
    lr: float = Field(default=2e-4, ge=0)
    scale_lr: float = Field(default=2e-5, ge=0)
    norm_lr: float = Field(default=2e-5, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    checkpoint_every: int | None = Field(default=100, ge=1)
    evaluate_every: int | None = Field(default=None, ge=1)
