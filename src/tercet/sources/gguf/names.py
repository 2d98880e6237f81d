"""Tensor names of GGUF architectures, what transformers calls them, and the shape each must have.

One table an architecture. A shape is written in the sizes of the config (`vocab`, `hidden`, `ffn`, `q`, `kv`, `head`),
so that a tensor whose shape does not fit its model is refused here and not by whoever multiplies with it later.
Tensors that no table knows are refused as well: a dropped bias or expert would give a model that is quietly wrong.

llama.cpp stores two things differently, undone in `convert`: q and k rows of "llama" files are permuted so that
rotated pairs are neighbours (`interleaved`), and Gemma's RMSNorm weights have 1 added (`norm_offset`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["LAYOUTS", "Layout"]

Shape = tuple[str, ...]
Names = dict[str, tuple[str, Shape]]


@dataclass(frozen=True)
class Layout:
    """How one architecture is stored. Names map GGUF's to (transformers', shape); `block` names lack their prefix."""

    model_type: str
    class_name: str
    block: Names
    optional: Names = field(default_factory=dict)  # of a block
    top: Names = field(default_factory=dict)
    head: Names = field(default_factory=dict)  # absent where the head is tied
    interleaved: bool = False
    norm_offset: float = 0.0

    def required(self, layers: int) -> Iterator[tuple[str, str, Shape]]:
        """(GGUF name, transformers name, shape) of every tensor a file must hold, top ones first."""
        for name, (target, shape) in self.top.items():
            yield name, target, shape
        for layer in range(layers):
            for name, (target, shape) in self.block.items():
                yield f"blk.{layer}.{name}", f"model.layers.{layer}.{target}", shape

    def extra(self, layers: int) -> Iterator[tuple[str, str, Shape]]:
        """The same for tensors a file may hold."""
        for name, (target, shape) in self.head.items():
            yield name, target, shape
        for layer in range(layers):
            for name, (target, shape) in self.optional.items():
                yield f"blk.{layer}.{name}", f"model.layers.{layer}.{target}", shape


TOP: Names = {
    "token_embd.weight": ("model.embed_tokens.weight", ("vocab", "hidden")),
    "output_norm.weight": ("model.norm.weight", ("hidden",)),
}
HEAD: Names = {"output.weight": ("lm_head.weight", ("vocab", "hidden"))}
QKV: Names = {
    "attn_q.weight": ("self_attn.q_proj.weight", ("q", "hidden")),
    "attn_k.weight": ("self_attn.k_proj.weight", ("kv", "hidden")),
    "attn_v.weight": ("self_attn.v_proj.weight", ("kv", "hidden")),
}
QKV_BIAS: Names = {
    "attn_q.bias": ("self_attn.q_proj.bias", ("q",)),
    "attn_k.bias": ("self_attn.k_proj.bias", ("kv",)),
    "attn_v.bias": ("self_attn.v_proj.bias", ("kv",)),
}
OUTPUT: Names = {"attn_output.weight": ("self_attn.o_proj.weight", ("hidden", "q"))}
OUTPUT_BIAS: Names = {"attn_output.bias": ("self_attn.o_proj.bias", ("hidden",))}
MLP: Names = {
    "ffn_gate.weight": ("mlp.gate_proj.weight", ("ffn", "hidden")),
    "ffn_up.weight": ("mlp.up_proj.weight", ("ffn", "hidden")),
    "ffn_down.weight": ("mlp.down_proj.weight", ("hidden", "ffn")),
}
MLP_BIAS: Names = {
    "ffn_gate.bias": ("mlp.gate_proj.bias", ("ffn",)),
    "ffn_up.bias": ("mlp.up_proj.bias", ("ffn",)),
    "ffn_down.bias": ("mlp.down_proj.bias", ("hidden",)),
}
NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", ("hidden",)),
    "ffn_norm.weight": ("post_attention_layernorm.weight", ("hidden",)),
}
QK_NORM: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", ("head",)),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", ("head",)),
}
SANDWICH_NORMS: Names = {
    "attn_norm.weight": ("input_layernorm.weight", ("hidden",)),
    "post_attention_norm.weight": ("post_attention_layernorm.weight", ("hidden",)),
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", ("hidden",)),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", ("hidden",)),
}
PHI_BLOCK: Names = {
    **QKV,
    **QKV_BIAS,
    "attn_norm.weight": ("input_layernorm.weight", ("hidden",)),
    "attn_norm.bias": ("input_layernorm.bias", ("hidden",)),
    "attn_output.weight": ("self_attn.dense.weight", ("hidden", "q")),
    "attn_output.bias": ("self_attn.dense.bias", ("hidden",)),
    "ffn_up.weight": ("mlp.fc1.weight", ("ffn", "hidden")),
    "ffn_up.bias": ("mlp.fc1.bias", ("ffn",)),
    "ffn_down.weight": ("mlp.fc2.weight", ("hidden", "ffn")),
    "ffn_down.bias": ("mlp.fc2.bias", ("hidden",)),
}
PHI_TOP: Names = {
    "token_embd.weight": ("model.embed_tokens.weight", ("vocab", "hidden")),
    "output_norm.weight": ("model.final_layernorm.weight", ("hidden",)),
    "output_norm.bias": ("model.final_layernorm.bias", ("hidden",)),
    "output.weight": ("lm_head.weight", ("vocab", "hidden")),
    "output.bias": ("lm_head.bias", ("vocab",)),
}

AFTER_NORMS: Names = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", ("hidden",)),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", ("hidden",)),
}
WHOLE_QK_NORM: Names = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", ("q",)),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", ("kv",)),
}
GLM_NORMS: Names = {
    **NORMS,
    "post_attention_norm.weight": ("post_self_attn_layernorm.weight", ("hidden",)),
    "post_ffw_norm.weight": ("post_mlp_layernorm.weight", ("hidden",)),
}
FUSED_MLP: Names = {
    "ffn_up.weight": ("mlp.gate_up_proj.weight", ("2ffn", "hidden")),
    "ffn_down.weight": ("mlp.down_proj.weight", ("hidden", "ffn")),
}
NORM_BIASES: Names = {
    "attn_norm.bias": ("input_layernorm.bias", ("hidden",)),
    "ffn_norm.bias": ("post_attention_layernorm.bias", ("hidden",)),
}
STARCODER_MLP: Names = {
    "ffn_up.weight": ("mlp.c_fc.weight", ("ffn", "hidden")),
    "ffn_up.bias": ("mlp.c_fc.bias", ("ffn",)),
    "ffn_down.weight": ("mlp.c_proj.weight", ("hidden", "ffn")),
    "ffn_down.bias": ("mlp.c_proj.bias", ("hidden",)),
}
FUSED_QKV: Names = {"attn_qkv.weight": ("self_attn.qkv_proj.weight", ("q+2kv", "hidden"))}
TOP_BIASED: Names = {**TOP, "output_norm.bias": ("model.norm.bias", ("hidden",))}

LAYOUTS: dict[str, Layout] = {
    "llama": Layout(
        "llama",
        "LlamaForCausalLM",
        {**NORMS, **QKV, **OUTPUT, **MLP},
        {**QKV_BIAS, **OUTPUT_BIAS, **MLP_BIAS},
        TOP,
        HEAD,
        interleaved=True,
    ),
    "qwen2": Layout("qwen2", "Qwen2ForCausalLM", {**NORMS, **QKV, **QKV_BIAS, **OUTPUT, **MLP}, {}, TOP, HEAD),
    "qwen3": Layout(
        "qwen3",
        "Qwen3ForCausalLM",
        {**NORMS, **QKV, **QK_NORM, **OUTPUT, **MLP},
        {**QKV_BIAS, **OUTPUT_BIAS},
        TOP,
        HEAD,
    ),
    "gemma3": Layout(
        "gemma3_text",
        "Gemma3ForCausalLM",
        {**SANDWICH_NORMS, **QKV, **QK_NORM, **OUTPUT, **MLP},
        {},
        TOP,
        HEAD,
        norm_offset=1.0,
    ),
    "phi2": Layout("phi", "PhiForCausalLM", PHI_BLOCK, {}, PHI_TOP),
    "cohere2": Layout(
        "cohere2",
        "Cohere2ForCausalLM",
        {"attn_norm.weight": NORMS["attn_norm.weight"], **QKV, **OUTPUT, **MLP},
        {},
        TOP,
        HEAD,
    ),
    "ernie4_5": Layout("ernie4_5", "Ernie4_5ForCausalLM", {**NORMS, **QKV, **OUTPUT, **MLP}, {}, TOP, HEAD),
    "exaone4": Layout(
        "exaone4", "Exaone4ForCausalLM", {**AFTER_NORMS, **QKV, **QK_NORM, **OUTPUT, **MLP}, {}, TOP, HEAD
    ),
    "gemma": Layout("gemma", "GemmaForCausalLM", {**NORMS, **QKV, **OUTPUT, **MLP}, {}, TOP, HEAD, norm_offset=1.0),
    "glm4": Layout("glm4", "Glm4ForCausalLM", {**GLM_NORMS, **QKV, **OUTPUT, **FUSED_MLP}, QKV_BIAS, TOP, HEAD),
    "granite": Layout(
        "granite", "GraniteForCausalLM", {**NORMS, **QKV, **OUTPUT, **MLP}, {}, TOP, HEAD, interleaved=True
    ),
    "olmo2": Layout(
        "olmo2", "Olmo2ForCausalLM", {**AFTER_NORMS, **QKV, **WHOLE_QK_NORM, **OUTPUT, **MLP}, {}, TOP, HEAD
    ),
    "phi3": Layout("phi3", "Phi3ForCausalLM", {**NORMS, **FUSED_QKV, **OUTPUT, **FUSED_MLP}, {}, TOP, HEAD),
    "smollm3": Layout(
        "smollm3", "SmolLM3ForCausalLM", {**NORMS, **QKV, **OUTPUT, **MLP}, {}, TOP, HEAD, interleaved=True
    ),
    "stablelm": Layout(
        "stablelm", "StableLmForCausalLM", {**NORMS, **NORM_BIASES, **QKV, **OUTPUT, **MLP}, QKV_BIAS, TOP_BIASED, HEAD
    ),
    "starcoder2": Layout(
        "starcoder2",
        "Starcoder2ForCausalLM",
        {**NORMS, **NORM_BIASES, **QKV, **QKV_BIAS, **OUTPUT, **OUTPUT_BIAS, **STARCODER_MLP},
        {},
        TOP_BIASED,
        HEAD,
    ),
}
