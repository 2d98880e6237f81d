"""StarCoder2: LayerNorms, biases, no gate, one window for all layers."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.layers import one_window
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain
from tercet.program import Stored

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 2,
    "sliding_window": None,
    "use_bias": True,
    "tie_word_embeddings": True,
}
UNUSED = ("activation_function", "mlp_type", "norm_type", "layer_norm_epsilon", "scale_attn_weights")


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("use_bias")
    return plain(
        "starcoder2",
        config,
        eps="norm_epsilon",
        windows=one_window(config),
        norm="layernorm",
        qkv_bias=biased,
        out_bias=biased,
        mlp_bias=biased,
        mlp=("up_proj", "down_proj"),
        stored={"mlp.up_proj": Stored("mlp.c_fc"), "mlp.down_proj": Stored("mlp.c_proj")},
    )


FAMILY = decoder("StarCoder2", DEFAULTS, spec, UNUSED)
