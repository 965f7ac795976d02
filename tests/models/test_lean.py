"""The lean decoder: (1) it says what the Hugging Face forward says, family by family; (2) its weights are the model's own, and
training, storing and copying the model go on as ever; (3) adapters, other dtypes and changed weights are followed; (4) what it
does not compute is left to a slower decoder."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from tests.models import decoding, zoo
from turnwise.models import CachedDecoder, Policy, RecomputeDecoder, lean, make_decoder, with_lora
from turnwise.models.lean import LeanDecoder
from turnwise.models.routes import PackedWeight

BASE: dict[str, Any] = {
    "vocab_size": zoo.V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"short_factor": [1.0, 1.3, 1.7, 2.0], "long_factor": [4.0, 5.0, 6.0, 7.0], "factor": 4.0}

FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, {}),
    "one key head per query head": (hf.LlamaForCausalLM, hf.LlamaConfig, {"num_key_value_heads": 4}),
    "one key head": (hf.LlamaForCausalLM, hf.LlamaConfig, {"num_key_value_heads": 1}),
    "tied embeddings": (hf.LlamaForCausalLM, hf.LlamaConfig, {"tie_word_embeddings": True}),
    "biases": (hf.LlamaForCausalLM, hf.LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "wide heads": (hf.LlamaForCausalLM, hf.LlamaConfig, {"head_dim": 16}),
    "wide model": (hf.LlamaForCausalLM, hf.LlamaConfig, {"hidden_size": 288, "head_dim": 8}),
    "gelu": (hf.LlamaForCausalLM, hf.LlamaConfig, {"hidden_act": "gelu"}),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, {"sliding_window": None}),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {"head_dim": 16}),
    "rotary, linear": (hf.LlamaForCausalLM, hf.LlamaConfig, rope("linear", factor=3.0)),
    "rotary, llama3": (hf.LlamaForCausalLM, hf.LlamaConfig, rope("llama3", **LLAMA3)),
    "rotary, yarn": (
        hf.Qwen2ForCausalLM, hf.Qwen2Config, rope("yarn", factor=4.0, original_max_position_embeddings=64),
    ),
    "rotary, dynamic": (hf.LlamaForCausalLM, hf.LlamaConfig, rope("dynamic", factor=2.0)),
    "rotary, longrope": (
        hf.LlamaForCausalLM, hf.LlamaConfig, rope("longrope", original_max_position_embeddings=64, **LONG),
    ),
}  # fmt: skip


def model(name: str = "llama", **more: Any) -> Any:
    """A tiny model whose every parameter, biases and norms included, is random."""
    kind, config, changes = FAMILIES[name]
    made = zoo.model(lambda: kind(config(**(BASE | changes | more))))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


def policy(name: str = "llama", **more: Any) -> Policy:
    return Policy(model(name, **more), zoo.TOKENIZER)


def worst(decoder: Any, truth: Any, *, steps: int = 25, longest: int = 200, seed: int = 0) -> float:
    contexts = decoding.Contexts(decoder, truth, 6, words=zoo.V, longest=longest, seed=seed)
    return max(contexts.step() for _ in range(steps))


def moved(policy: Policy) -> None:
    """One step of an optimizer on something."""
    optimizer = torch.optim.AdamW(policy.parameters().values(), lr=0.02, foreach=True)
    batch = zoo.batch()
    policy.outputs(batch).logp.sum().backward()
    optimizer.step()
    optimizer.zero_grad()


# ---- the same logits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_logits_of_its_own_forward(name: str) -> None:
    it = policy(name)
    decoder = make_decoder(it, 6)
    assert isinstance(decoder, LeanDecoder)
    assert worst(decoder, it.model, longest=it.context_limit) < 4e-5


@pytest.mark.parametrize("name", ["llama", "qwen3", "rotary, yarn"])
def test_long_contexts_in_any_pieces(name: str) -> None:
    it = policy(name, max_position_embeddings=2048, num_hidden_layers=2)
    decoder = make_decoder(it, 3)
    generator = torch.Generator().manual_seed(0)
    long, other = (torch.randint(0, zoo.V, (n,), generator=generator).tolist() for n in (1400, 1100))
    other[:900] = long[:900]
    for read, upto in ((0, 1050), (1050, 1051), (1051, 1400)):
        # Beside a second long context that shares its beginning, and a short one.
        rows = [
            (2, long[:upto], read, True),
            (0, other[: upto - 300], max(0, read - 300), True),
            (1, other[:upto], 0, False),
        ]
        said = decoder.advance(decoding.feed(rows))
        for mine, context in zip(said, (long[:upto], other[: upto - 300]), strict=True):
            truth = decoding.own_logits(it.model, context)
            assert float((mine - truth).abs().max()) < 4e-5 * float(truth.abs().max())


def test_logits_belong_to_whom_they_are_given() -> None:
    """They may be changed in place, and tables and caches made while decoding do not get in the way of gradients."""
    it = policy()
    decoder = make_decoder(it, 1)
    with torch.inference_mode():
        decoder.advance(decoding.feed([(0, [3] * 20, 0, True)]))
    decoder.advance(decoding.feed([(0, [3] * 40, 20, True)])).div_(2.0)
    moved(it)
    decoder.refresh()
    assert worst(make_decoder(it, 6), it.model, steps=5) < 4e-5


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="packing needs oneDNN")
@pytest.mark.parametrize("name", ["biases", "qwen3"])
def test_packed_weights_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Noting(PackedWeight):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            taken.append(len(x))
            return super().__call__(x)

    monkeypatch.setattr(lean, "PackedWeight", Noting)
    monkeypatch.setattr(lean, "packs", lambda rows, weight: rows >= 4)
    it = policy(name)
    assert LeanDecoder(it, 2)._head._packed is None
    decoder = make_decoder(it, 6)
    assert worst(decoder, it.model) < 4e-5
    assert min(taken) == 4
    moved(it)
    decoder.refresh()
    assert worst(decoder, it.model, steps=5) < 4e-5


# ---- one copy of the weights -----------------------------------------------------------------------------------------


def test_the_models_parameters_are_views_of_what_decodes() -> None:
    it = policy("qwen2")
    before = {name: value.clone() for name, value in it.model.state_dict().items()}
    decoders = [make_decoder(it, 2) for _ in range(2)]
    attention, mlp = it.model.model.layers[1].self_attn, it.model.model.layers[1].mlp
    for parts in ((attention.q_proj, attention.k_proj, attention.v_proj), (mlp.gate_proj, mlp.up_proj)):
        storages = {part.weight.untyped_storage().data_ptr() for part in parts}
        assert len(storages) == 1
        assert parts[0].weight.untyped_storage().nbytes() == sum(part.weight.nbytes for part in parts)
    after = it.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    moved(it)
    for decoder in decoders:
        decoder.refresh()
        assert worst(decoder, it.model, steps=10, longest=24) < 4e-5 if decoder.cache.slots >= 6 else True


def test_training_is_the_same_bit_for_bit() -> None:
    gradients = []
    for decodes in (False, True):
        it = policy("qwen3")
        if decodes:
            make_decoder(it, 2)
        it.outputs(zoo.batch()).logp.sum().backward()
        gradients.append({name: p.grad for name, p in it.parameters().items()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_models_are_stored_loaded_and_copied_as_ever(tmp_path: Path) -> None:
    it = policy("tied embeddings")
    plain = {name: value.clone() for name, value in it.model.state_dict().items()}
    decoder = make_decoder(it, 6)
    it.save(tmp_path / "whole")
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    stored = load_file(tmp_path / "whole" / "model.safetensors")
    assert set(stored) == {name for name, _ in it.model.named_parameters()}
    assert all(torch.equal(again.state_dict()[name], plain[name]) for name in plain)
    save_file({name: p.detach().contiguous() for name, p in it.parameters().items()}, tmp_path / "parts")
    assert all(torch.equal(value, plain[name]) for name, value in load_file(tmp_path / "parts").items())
    copied, reference = copy.deepcopy(it.model), it.reference()
    moved(it)
    for other in (copied, reference.model):
        assert all(torch.equal(value, plain[name]) for name, value in other.state_dict().items())
    other = make_decoder(reference, 6)
    assert worst(other, copied, steps=10) < 4e-5
    it.model.load_state_dict(plain)
    decoder.refresh()
    assert worst(decoder, copied, steps=10) < 4e-5


@pytest.mark.parametrize("how", ["replaced", "moved"])
def test_weights_that_were_replaced_are_found_at_the_next_version(how: str) -> None:
    it = policy("biases")
    decoder = make_decoder(it, 6)
    attention = it.model.model.layers[0].self_attn
    with torch.no_grad():
        if how == "replaced":
            attention.k_proj.weight = torch.nn.Parameter(torch.randn_like(attention.k_proj.weight))
            attention.v_proj.bias.data = torch.randn_like(attention.v_proj.bias)
        else:
            it.model.double().float()
            it.model.model.norm.weight.mul_(1.5)
    decoder.refresh()
    assert worst(decoder, it.model, steps=10) < 4e-5


# ---- adapters and dtypes ---------------------------------------------------------------------------------------------


def adapted(name: str = "qwen3", **settings: Any) -> Policy:
    """A policy under an adapter that says something."""
    it = Policy(with_lora(model(name), settings.pop("lora", 4)), zoo.TOKENIZER)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in it.parameters().values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return it


@pytest.mark.parametrize("lora", [4, "r=2,alpha=8,targets=v_proj+down_proj", "r=3,dropout=0.5,targets=q_proj+lm_head"])
def test_an_adapter_is_folded_in_at_every_version(lora: Any) -> None:
    it = adapted(lora=lora)
    weights = {name: p.clone() for name, p in it.model.named_parameters() if "lora" not in name}
    decoder = make_decoder(it, 6)
    assert isinstance(decoder, LeanDecoder)
    assert worst(decoder, it.model, steps=15) < 4e-5
    moved(it)
    decoder.refresh()
    assert worst(decoder, it.model, steps=15) < 4e-5
    assert all(torch.equal(dict(it.model.named_parameters())[name], value) for name, value in weights.items())


def test_an_adapter_that_is_switched_off_does_not_decode() -> None:
    it = Policy(with_lora(model(), 4), zoo.TOKENIZER)
    reference = it.reference()
    moved(it)
    decoder = make_decoder(reference, 6)
    assert isinstance(decoder, LeanDecoder)
    with it.model.disable_adapter():
        assert worst(decoder, it.model, steps=15) < 4e-5


def test_only_what_is_adapted_is_copied() -> None:
    it = adapted("llama", lora="r=2,targets=q_proj")
    make_decoder(it, 1)
    layer = it.model.get_base_model().model.layers[0]
    gate, up = layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight
    assert gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr()
    k, v = layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight
    assert k.untyped_storage().data_ptr() != v.untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", [LeanDecoder, CachedDecoder, RecomputeDecoder])
def test_16_bits_stay_near_and_follow_the_weights(kind: Callable[..., Any]) -> None:
    it = policy("qwen3", initializer_range=0.02)
    decoder = kind(it, 6, dtype="bfloat16")
    scale = float(decoding.own_logits(it.model, [3, 4, 5]).abs().max())
    for _ in range(2):
        assert 0 < worst(decoder, it.model, steps=15, longest=60) < 0.05 * max(1.0, scale)
        moved(it)
        decoder.refresh()
    assert all(p.dtype == torch.float32 for p in it.model.parameters())


# ---- what is left to slower decoders ---------------------------------------------------------------------------------


def test_a_model_that_differs_is_decoded_through_its_own_modules(caplog: pytest.LogCaptureFixture) -> None:
    it = policy()
    it.model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.01)
    with caplog.at_level(logging.WARNING):
        decoder = make_decoder(it, 6)
    assert isinstance(decoder, CachedDecoder)
    assert len(caplog.records) == 1
    assert "LlamaForCausalLM decodes more slowly" in caplog.text
    assert worst(decoder, it.model, steps=10) < 4e-5


@pytest.mark.parametrize(("name", "kind"), [("gpt2", CachedDecoder), ("mixtral", CachedDecoder)])
def test_other_families_keep_a_cache(name: str, kind: type, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(make_decoder(zoo.policy(zoo.PACKED[name]), 2), kind)
    assert not [record for record in caplog.records if record.name.startswith("turnwise")]


def test_what_runs_padded_reads_everything_again() -> None:
    assert isinstance(make_decoder(zoo.policy(zoo.OWN["bloom, alibi"]), 2), RecomputeDecoder)


def test_adapters_that_are_more_than_a_product_are_not_folded() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        it = Policy(peft.get_peft_model(model(), config), zoo.TOKENIZER)
    decoder = make_decoder(it, 6)
    assert isinstance(decoder, CachedDecoder)
