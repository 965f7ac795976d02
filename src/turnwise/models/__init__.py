"""Policies: a Hugging Face causal LM with tokenizer, renderer and heads."""

from turnwise.models.decoder import CachedDecoder, Decoder, RecomputeDecoder, Row
from turnwise.models.distribution import Sampling, entropy, log_probs
from turnwise.models.policy import Policy, verify_packing
from turnwise.models.scratch import SIZES, build_model, build_tokenizer

__all__ = [
    "SIZES",
    "CachedDecoder",
    "Decoder",
    "Policy",
    "RecomputeDecoder",
    "Row",
    "Sampling",
    "build_model",
    "build_tokenizer",
    "entropy",
    "log_probs",
    "verify_packing",
]
