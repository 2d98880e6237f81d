"""Keys of a config that change no number, and the refusal of those that nobody has read.

A key that a family reads is recorded by `Settings`. What is left over is fine where it is off (absent, null, false, 0,
empty), or where its name is here: bookkeeping, training, generation, how a result is computed and not what. Anything
else may be a feature that is not built, and is refused by name rather than passed over.
"""

from __future__ import annotations

import re

from tercet.errors import ModelError
from tercet.families.settings import Settings, show

__all__ = ["refuse_unread"]

BOOKKEEPING = """
    architectures auto_map model_type torch_dtype dtype transformers_version transformers.js_config tokenizer_class
    processor_class name_or_path license language id2label label2id num_labels problem_type task_specific_params
    finetuning_task unsloth_fixed unsloth_version is_llama_config tercet model_name org_vocab_size
"""
TRAINING = """
    initializer_factor init_std initializer_cutoff_factor layerdrop router_aux_loss_coef pretraining_tp
    gradient_checkpointing logit_scale_init_value use_cache tie_encoder_decoder is_decoder torchscript tf_legacy_loss
    use_bfloat16 pruned_heads chunk_size_feed_forward return_dict keys_to_ignore_at_inference base_model_tp_plan
    base_model_pp_plan sep_token prefix max_sequence_length model_max_length seq_length
"""
GENERATION = """
    max_length min_length max_new_tokens do_sample temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences num_beams num_beam_groups
    diversity_penalty early_stopping suppress_tokens begin_suppress_tokens exponential_decay_length_penalty
    remove_invalid_values cache_implementation return_dict_in_generate output_scores output_attentions
    output_hidden_states output_router_logits
"""
HOW = """
    attn_implementation use_flash_attn use_flash_attention use_flash_attention_2 use_sdpa attention_softmax_in_fp32
    scale_attention_softmax_in_fp32 fused_bias_fc fused_dropout_add_ln
"""
KEYS = frozenset(f"{BOOKKEEPING} {TRAINING} {GENERATION} {HOW}".split())
PATTERN = re.compile(r"_.*|initializer_range|summary_.*|.*(_token_ids?|_token_index|dropout(_prob)?|_pdrop)")


def refuse_unread(settings: Settings) -> None:
    """Raises ModelError where a key is set that nobody has read and that may change a number."""
    for own in settings.all():
        for key, value in own.given.items():
            if key in own.reads or key in own.unused or key in KEYS or PATTERN.fullmatch(str(key)):
                continue
            if not value or (key == "layer_types" and set(map(str, value)) == {"full_attention"}):
                continue
            raise ModelError(
                f"{own.where}: {str(key)[:40]} is {show(value)}, and no code here knows it; if it changes no result, "
                "take it out of the file"
            )
