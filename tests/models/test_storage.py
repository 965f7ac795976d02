"""A saved policy is an ordinary Hugging Face folder: (1) transformers loads it, (2) and generates greedily what our engine
does at temperature 0, (3) the value head comes back, (4) a LoRA policy comes back as one or merged, (5) its reference is
what it was when it was asked for, (6) what cannot be loaded is said with the remedy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from tests.models import zoo
from turnwise.engines import LocalEngine, Request
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model
from turnwise.models.policy import with_lora
from turnwise.models.storage import find_device

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """A byte-level BPE tokenizer with ChatML, like Qwen2's but small."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [zoo.WORDS] * 4,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHATML
    return fast


def scratch() -> Policy:
    return Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER, value_head=True)


def qwen() -> Policy:
    tokenizer = byte_tokenizer()
    config = hf.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Policy(zoo.model(lambda: hf.Qwen2ForCausalLM(config), 5), tokenizer, value_head=True)


@pytest.mark.parametrize("make", [scratch, qwen])
def test_transformers_generates_what_our_engine_does(make: Any, tmp_path: Path) -> None:
    policy = make()
    policy.save(tmp_path)
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path)
    greedy = Sampling(temperature=0, max_tokens=12)
    engine = LocalEngine(policy, slots=2)

    async def ours(context: np.ndarray[Any, Any], session: int) -> list[int]:
        request = Request(context, session, 1, greedy, policy.renderer.stop)
        return (await engine.generate(request)).ids.tolist()

    actions: list[tuple[int, ...]] = []
    for number, text in enumerate(["see a door", "take the key", "go north go south", "e d c b a a"]):
        context = policy.renderer.first(text)
        chat = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert prompt["input_ids"][0].tolist() == context.tolist()
        generated = model.generate(
            **prompt, do_sample=False, max_new_tokens=12, eos_token_id=sorted(policy.renderer.stop)
        )
        actions.append(tuple(asyncio.run(ours(context, number))))
        assert generated[0, len(context) :].tolist() == list(actions[-1])
    assert len(set(actions)) > 1


def test_a_loaded_policy_is_the_saved_one(tmp_path: Path) -> None:
    policy = scratch()
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(1))
    policy.save(tmp_path)
    loaded = Policy.from_pretrained(tmp_path, value_head=True)
    batch = zoo.batch(bootstrap=True)
    with torch.no_grad():
        a, b = policy.outputs(batch), loaded.outputs(batch)
    assert loaded.packed
    assert loaded.banned.tolist() == policy.banned.tolist()
    assert loaded.renderer.stop == policy.renderer.stop
    for name in ("logp", "entropy", "value", "final_value"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.value is not None
    assert a.value.abs().max() > 0
    assert Policy.from_pretrained(tmp_path).value_head is None


def test_a_new_value_head_says_zero() -> None:
    outputs = scratch().outputs(zoo.batch(bootstrap=True))
    assert outputs.value is not None
    assert outputs.final_value is not None
    assert (outputs.value == 0).all()
    assert (outputs.final_value == 0).all()


def test_a_reference_stays_where_it_was() -> None:
    policy = scratch()
    reference = policy.reference()
    batch = zoo.batch()
    before = reference.outputs(batch).logp.detach()
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.add_(0.1)
    assert torch.equal(reference.outputs(batch).logp, before)
    assert not torch.allclose(policy.outputs(batch).logp, before)
    assert not reference.parameters()


def lora(seed: int = 0) -> Policy:
    base = build_model(zoo.TOKENIZER, seed=3)
    return Policy(with_lora(base, 4, seed=seed), zoo.TOKENIZER)


def shake(policy: Policy) -> None:
    """Move every trainable parameter."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def test_lora_trains_the_adapter_alone_and_its_reference_is_the_base_model() -> None:
    pytest.importorskip("peft")
    base, policy, batch = Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER), lora(), zoo.batch()
    assert policy.packed
    assert policy.parameters()
    assert all("lora" in name for name in policy.parameters())
    plain = base.outputs(batch).logp.detach()
    torch.testing.assert_close(policy.outputs(batch).logp.detach(), plain, atol=1e-6, rtol=0)
    reference = policy.reference()
    shake(policy)
    moved = policy.outputs(batch).logp
    assert not torch.allclose(moved, plain, atol=1e-2)
    torch.testing.assert_close(reference.outputs(batch).logp.detach(), plain, atol=1e-6, rtol=0)
    # Asking the reference in between leaves the adapter trainable.
    moved.sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in policy.parameters().values())
    assert torch.equal(policy.outputs(batch).logp, moved)


def test_lora_weights_come_from_their_seed() -> None:
    pytest.importorskip("peft")
    a, b, c = (lora(seed).parameters() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_lora_comes_back_merged_or_as_an_adapter(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER).save(tmp_path / "base")
    policy = Policy.from_pretrained(tmp_path / "base", lora=4)
    shake(policy)
    batch = zoo.batch()
    said = policy.outputs(batch).logp.detach()

    policy.save(tmp_path / "merged", merge=True)
    merged = Policy.from_pretrained(tmp_path / "merged")
    assert not merged.has_adapter
    torch.testing.assert_close(merged.outputs(batch).logp.detach(), said, atol=1e-5, rtol=0)
    assert torch.equal(policy.outputs(batch).logp.detach(), said)

    policy.save(tmp_path / "adapter")
    assert "model.safetensors" not in {path.name for path in (tmp_path / "adapter").iterdir()}
    again = Policy.from_pretrained(tmp_path / "adapter")
    assert again.has_adapter
    assert again.parameters().keys() == policy.parameters().keys()
    torch.testing.assert_close(again.outputs(batch).logp.detach(), said, atol=1e-6, rtol=0)
    # What a stored adapter has learnt is where the divergence is measured from.
    reference = again.reference()
    shake(again)
    assert not torch.allclose(again.outputs(batch).logp, said, atol=1e-2)
    torch.testing.assert_close(reference.outputs(batch).logp.detach(), said, atol=1e-6, rtol=0)


def test_an_adapter_on_a_model_without_a_home_is_saved_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy = lora()
    shake(policy)
    policy.save(tmp_path)
    batch = zoo.batch()
    loaded = Policy.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.outputs(batch).logp, policy.outputs(batch).logp, atol=1e-5, rtol=0)


def test_what_cannot_be_loaded_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TurnwiseError, match=r"empty.*\n.*config.json"):
        Policy.from_pretrained(tmp_path / "empty")
    build_model(zoo.TOKENIZER).save_pretrained(tmp_path / "bare")
    with pytest.raises(TurnwiseError, match="tokenizer"):
        Policy.from_pretrained(tmp_path / "bare")
    scratch().save(tmp_path / "good")
    (tmp_path / "good" / "value_head.safetensors").unlink()
    assert not load_file(tmp_path / "good" / "model.safetensors").keys() & {"weight", "bias"}
    assert Policy.from_pretrained(tmp_path / "good", value_head=True).value_head is not None


def test_devices_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert [find_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")] == ["cuda:0", "cpu", "cuda", "cuda:1"]
    for name in ("cuda:2", "mps", "gpu", ""):
        with pytest.raises(TurnwiseError, match=rf"no device '{name}' here.*finds cpu, cuda:0, cuda:1"):
            find_device(name)


def test_a_model_is_not_loaded_onto_a_device_that_is_not_there(tmp_path: Path) -> None:
    scratch().save(tmp_path)
    with pytest.raises(TurnwiseError, match="no device 'abacus' here"):
        Policy.from_pretrained(tmp_path, device="abacus")
