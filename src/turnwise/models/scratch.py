"""A small language model from scratch, whose tokenizer knows the words of one environment.

`tiny` learns a small world in seconds on one CPU core; `small` has about a million parameters. Both are ordinary
Llama models in ordinary Hugging Face folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    "small": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
}
"""Shapes by name."""

PAD, UNKNOWN, START, END, ACT = "<pad>", "<unk>", "<s>", "<end>", "<act>"

# A word or a single digit or sign; the blank before it belongs to it, so that joining tokens gives the text back.
_PIECE = "\n|▁?[0-9]|▁?[^\\W\\d_]+|▁?[^\\w\\s▁]|▁?_|▁"

_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}<act>{{ message.content }}<end>"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<act>{% endif %}"
)


def build_tokenizer(texts: Iterable[str], *, max_words: int = 4096) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the words in `texts`; decoding gives the text back up to a leading blank.

    Digits stand alone and all ten are known, so any number can be read and written. What is not in the `max_words` most
    frequent pieces becomes ``<unk>``, which is read but never sampled.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Metaspace as MetaspaceDecoder
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Metaspace, Sequence, Split

    splitter = Sequence([Metaspace(prepend_scheme="always", split=False), Split(Regex(_PIECE), behavior="isolated")])
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for piece, _ in splitter.pre_tokenize_str(text):
            counts[piece] += times
    digits = [mark + digit for digit in "0123456789" for mark in ("▁", "")]
    words = sorted(word for word, _ in counts.most_common(max_words))
    pieces = list(dict.fromkeys([PAD, UNKNOWN, START, END, ACT, *digits, *words]))
    tokenizer = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = MetaspaceDecoder(prepend_scheme="always", split=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=[ACT],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _TEMPLATE
    return fast


def build_model(
    tokenizer: PreTrainedTokenizerFast, size: str = "tiny", *, seed: int = 0, context: int = 2048
) -> LlamaForCausalLM:
    """A randomly initialised Llama of the named size for `tokenizer`; the global random state is left alone.

    Raises:
        KeyError: unknown size.
    """
    shape = SIZES[size]
    known: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=shape["num_attention_heads"],
        max_position_embeddings=context,
        tie_word_embeddings=False,
        # The usual 0.02 is made for widths of a thousand and more; at 64 it keeps a model from using its inputs for
        # hundreds of steps.
        initializer_range=0.8 * shape["hidden_size"] ** -0.5,
        **known,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    never = [tokenizer.convert_tokens_to_ids(token) for token in (PAD, UNKNOWN, START, ACT)]
    model.generation_config = GenerationConfig(suppress_tokens=never, **known)
    return model
