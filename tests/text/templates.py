"""Chat templates of the kinds that are in use, and small tokenizers to go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as hf

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|header|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|header|>\n\n{% endif %}"
)
"""With a beginning-of-sequence token, and contents trimmed."""
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}{{ raise_exception('no system role') }}"
    "{% endif %}{% endfor %}"
)
"""Actions begin with a blank; a system message is refused."""
FORGETS_THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Puts an empty thought into the last answer and takes it out again when another turn arrives."""
CLOSES_AT_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
"""Writes the end of the dialogue behind the last message only."""
THINKS_FIRST = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""Begins the answer with an open thought that a finished message does not show."""
LAST_ONLY = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}<|im_end|>"
"""Shows the last message alone."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|bos|>", "<|start|>", "<|header|>", "<|eot|>", "</s>")
CORPUS = ["go north south east west take the key open a door user assistant system [INST] [/INST] > :"] * 4


def byte_level(
    template: str | None, *, eos: str = "<|endoftext|>", bos: str | None = None, adds_bos: bool = False
) -> Any:
    """A byte-level BPE tokenizer: any text comes back exactly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=340, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    if adds_bos:
        token = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[token])
    return _fast(tokenizer, template, eos, bos)


def sentence_pieces(template: str | None) -> Any:
    """Pieces that carry their blank in front, one put before every text, unknown characters spelt as bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = [
        "▁go",
        "▁north",
        "▁south",
        "▁key",
        "▁>",
        ">",
        "▁",
        ":",
        "▁Yq0",
        "Yq",
        "▁Yq",
        "0",
        "1",
        "▁X",
        "X",
        "▁Xq",
        "q",
    ]
    letters = [chr(c) for c in range(33, 127)]
    pieces = [*SPECIAL, *(f"<0x{b:02X}>" for b in range(256)), *dict.fromkeys([*words, *letters])]
    vocabulary = [(piece, -len(pieces) / (1 + len(piece))) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _fast(tokenizer, template, "</s>", None)


def _fast(tokenizer: Any, template: str | None, eos: str, bos: str | None, extra: Sequence[str] = SPECIAL) -> Any:
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, additional_special_tokens=list(extra),
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = template
    return fast
