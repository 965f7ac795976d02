"""Policies and scorers: Hugging Face models with tokenizer, renderer and heads."""

from turnwise.models.decoder import CachedDecoder, Decoder, RecomputeDecoder, make_decoder
from turnwise.models.distribution import Sampling, entropy, log_probs
from turnwise.models.lora import LoraSettings, lora_spec, with_lora
from turnwise.models.policy import Policy, verify_packing
from turnwise.models.scorer import Scorer
from turnwise.models.scratch import SIZES, build_model, build_tokenizer
from turnwise.models.slot_attention import Feed

__all__ = [
    "SIZES",
    "CachedDecoder",
    "Decoder",
    "Feed",
    "LoraSettings",
    "Policy",
    "RecomputeDecoder",
    "Sampling",
    "Scorer",
    "build_model",
    "build_tokenizer",
    "entropy",
    "log_probs",
    "lora_spec",
    "make_decoder",
    "verify_packing",
    "with_lora",
]
