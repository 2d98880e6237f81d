"""HunYuan, dense: norms on each query and key head behind RoPE; a fixed `alpha` raises its base, under the
name "dynamic"."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.rope import named, parameters
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain, read_shape
from tercet.program import Stored

__all__ = ["FAMILY"]

DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048}
UNUSED = (
    "attention_head_dim",
    "cla_share_factor",
    "dense_list",
    "im_end_id",
    "im_newline_id",
    "im_start_id",
    "mask_init_id",
    "norm_type",
    "pool_type",
    "text_end_id",
    "text_start_id",
    "use_qk_norm",
    "use_rotary_pos_emb",
    "video_end_id",
    "video_start_id",
    "skip_cls_token",
    "v_head_dim",
    "vit_type",
    "eod_token_id",
    "anyres_pooling_size",
    "anyres_vit_max_image_size",
    "anyres_vit_two_views",
)


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    return plain(
        "hunyuan_v1_dense",
        config,
        rope=_rope(config),
        qk_norms=("q_norm", "k_norm"),
        qk_norm="head after rope",
        qkv_bias=biased,
        out_bias=biased,
        stored={
            "self_attn.q_norm": Stored("self_attn.query_layernorm"),
            "self_attn.k_norm": Stored("self_attn.key_layernorm"),
        },
    )


def _rope(config: Settings) -> Settings:
    given = parameters(config)
    if given.raw("rope_type") != "dynamic" or not given.raw("alpha"):
        return given
    dim = read_shape(config).head_dim
    alpha = given.number("alpha", 1e-3, 1e9)
    if dim < 4:
        raise config.error("head_dim", "4 at least")
    return named(config, {"rope_theta": given.number("rope_theta", 1.001, 1e30) * alpha ** (dim / (dim - 2))})


FAMILY = decoder("HunYuan, dense", DEFAULTS, spec, UNUSED)
