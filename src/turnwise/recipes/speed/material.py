"""What both sides are given: a model with weights drawn from one seed, a tokenizer of plain words, and texts.

A token is a word. So a text of n words has n tokens wherever it stands, and the token counts of both sides can be made equal
exactly. The chat template marks who speaks with one token before a message and one after an answer; it renders tool calls
because TRL's environments are tools, and it leaves their schema out of the prompt, so that TRL reads no token more than we.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.recipes.speed.cases import WORKLOADS, Case, Size

PAD, END, USER, ACT, TOOL = "<pad>", "<end>", "<user>", "<act>", "<tool>"
_MARKS = (PAD, END, USER, ACT, TOOL, "<unk>")

_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<act> {{ m.content }}"
    "{% if m.tool_calls %}{% for call in m.tool_calls %} {{ call.function.name }}"
    "{% for name, value in call.function.arguments.items() %} {{ name }} {{ value }}{% endfor %}{% endfor %}{% endif %} <end>"
    "{% elif m.role == 'tool' %}<tool> {{ m.content }} {% else %}<user> {{ m.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<act>{% endif %}"
)

# Whatever is sampled is one call of the environment's only tool, so that each answer leads to another turn.
_EVERY_ANSWER_IS_A_CALL = {
    "defaults": {"role": "assistant"},
    "start_anchor": ACT,
    "fields": {
        "tool_calls": {
            "close": END,
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "answer", "arguments": {"text": "{content}"}}},
        }
    },
}


def build_tokenizer(size: Size, *, tools: bool = False) -> Any:
    """A tokenizer whose tokens are words: ``w0``, ``w1`` and so on, and the marks of the template.

    Args:
        size: Says how many tokens there are.
        tools: Read every answer as a call of the tool ``answer``, in the way that TRL asks a tokenizer to.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = [*_MARKS, *(f"w{i}" for i in range(size.vocabulary - len(_MARKS)))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in _MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token="<unk>", padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = _TEMPLATE
    if tools:
        fast.response_template = _EVERY_ANSWER_IS_A_CALL
    return fast


def never_sampled() -> list[int]:
    """Ids of the marks, the end of an answer among them: every answer uses up its budget."""
    return list(range(len(_MARKS)))


def build_model(case: Case, *, scores: bool = False, dtype: str = "fp32", seed: int = 0) -> Any:
    """A Qwen2 model with weights drawn from `seed`, equal wherever it is built.

    Args:
        case: Says which size, and on which device.
        scores: A model for sequence classification with one label instead of a language model.
        dtype: Of the weights.
        seed: Of the weights.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

    shape = case.shape
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.feed,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        max_position_embeddings=max(4096, case.length + 1), tie_word_embeddings=False, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = (Qwen2ForSequenceClassification if scores else Qwen2ForCausalLM)(config)
    if not scores:
        never = never_sampled() if WORKLOADS[case.workload].samples else None
        model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1, suppress_tokens=never)
    return model.to(device=case.device, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)


def words(size: Size, n: int, seed: int) -> str:
    """`n` random words, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return " ".join(f"w{i}" for i in rng.integers(size.vocabulary - len(_MARKS), size=n))


def stored(case: Case) -> int:
    """Prompts, texts or pairs that there are; the steps go round in them."""
    return 16 * case.groups


def first_words(case: Case, seed: int) -> str:
    """The first observation of a task: with its two marks it has ``case.prompt`` tokens."""
    return words(case.shape, case.prompt - 2, seed)


def reward_of(text: str) -> float:
    """What an answer is paid: something that differs from answer to answer and costs nothing to compute."""
    return sum(map(len, text.split())) / 100
