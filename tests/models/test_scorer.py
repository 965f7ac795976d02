"""A scorer is an ordinary Hugging Face classification folder: (1) transformers' own score of a text is ours at its last
token, with and without padding, in every family, (2) at every beginning of the text too, (3) it comes back equal, (4) it
begins with a policy's weights and a seeded head, (5) an adapter comes back as one or merged, (6) gradients reach the same
parameters as through transformers, (7) what cannot score is named with the remedy."""

from __future__ import annotations

import copy
import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tests.models import zoo
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Scorer, build_model

AUTO: dict[str, Any] = {
    "reward": hf.AutoModelForSequenceClassification,
    "process": hf.AutoModelForTokenClassification,
}
FAMILIES = {**zoo.PACKED, **{name: make for name, make in zoo.OWN.items() if name != "mamba"}}


def scorer(kind: Any = "reward", **options: Any) -> Scorer:
    return Scorer.of(zoo.policy(), kind=kind, **options)


def prefixes(batch: Any) -> list[Any]:
    """Every context that ends with an action token."""
    found = []
    for a, b in pairwise(batch.cu_seqlens.tolist()):
        found += [batch.tokens[a : end + 1] for end in range(a, b) if batch.action[end]]
    return found


def padded(parts: list[Any], pad: int) -> tuple[Any, Any]:
    ids = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(part) for part in parts])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_pooled_score_is_ours_at_every_action_token(family: str, tmp_path: Path) -> None:
    ours = Scorer.of(zoo.policy(FAMILIES[family]), seed=1)
    assert ours.packed == (family in zoo.PACKED)
    ours.save(tmp_path)
    model = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == zoo.TOKENIZER.pad_token_id
    batch = zoo.batch(4)
    parts = prefixes(batch)
    with torch.no_grad():
        said = ours.outputs(batch).score
        alone = torch.cat([model(input_ids=part[None]).logits[:, 0] for part in parts])
        ids, mask = padded(parts, model.config.pad_token_id)
        together = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    assert said is not None
    assert said.shape == (len(parts),)
    assert said.std() > 0.01
    torch.testing.assert_close(said, alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(said, together, atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama, grouped queries", "qwen2", "gpt2", "gpt neox", "gemma2, soft caps"])
def test_transformers_token_scores_are_ours(family: str, tmp_path: Path) -> None:
    ours = Scorer.of(zoo.policy(FAMILIES[family]), kind="process")
    ours.save(tmp_path)
    model = hf.AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert model.config.id2label == {0: "wrong", 1: "right"}
    batch = zoo.batch(4)
    with torch.no_grad():
        said = ours.outputs(batch).score
        theirs = [model(input_ids=ids[None]).logits[0][action] for ids, action, _ in zoo.rows(batch)]
    assert said is not None
    assert said.shape == (int(batch.action.sum()), 2)
    torch.testing.assert_close(said, torch.cat(theirs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["reward", "process"])
def test_a_loaded_scorer_is_the_saved_one(kind: Any, tmp_path: Path) -> None:
    first = scorer(kind)
    first.save(tmp_path)
    loaded = Scorer.from_pretrained(tmp_path, kind=kind)
    batch = zoo.batch(bootstrap=True)
    with torch.no_grad():
        a, b = first.outputs(batch), loaded.outputs(batch)
    assert loaded.packed
    assert not loaded.greedy
    assert loaded.context_limit == first.context_limit
    assert torch.equal(a.score, b.score)  # type: ignore[arg-type]
    assert not a.logp.any()
    assert not a.entropy.any()
    assert a.value is None
    assert loaded.tokenizer.get_vocab() == zoo.TOKENIZER.get_vocab()


def test_it_begins_with_the_weights_of_the_policy_and_leaves_it_alone() -> None:
    policy = zoo.policy()
    before = copy.deepcopy(policy.model.state_dict())
    made = Scorer.of(policy, seed=3)
    trunk = dict(made.model.base_model.named_parameters())
    for name, parameter in policy.model.base_model.named_parameters():
        assert torch.equal(parameter, trunk[name])
        assert parameter is not trunk[name]
    with torch.no_grad():
        for parameter in made.parameters().values():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, policy.model.state_dict()[name]) for name, tensor in before.items())
    assert policy.model.config.architectures == zoo.policy().model.config.architectures


def test_the_head_is_drawn_from_its_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (scorer(seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)  # type: ignore[arg-type]
    assert not torch.equal(a, c)  # type: ignore[arg-type]
    wide = hf.LlamaConfig(
        vocab_size=zoo.V, hidden_size=2048, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    head = Scorer.of(zoo.policy(lambda: hf.LlamaForCausalLM(wide))).head.weight.detach()
    # 1/sqrt(2049); a sample of 2048 has a relative standard error of 1/sqrt(2 * 2048) = 1.6 %.
    assert float(head.std()) == pytest.approx(2049**-0.5, rel=0.06)  # type: ignore[operator]


def test_a_causal_language_model_is_loaded_with_a_new_head(tmp_path: Path) -> None:
    policy = zoo.policy()
    policy.save(tmp_path)
    batch = zoo.batch()
    fresh, of = Scorer.from_pretrained(tmp_path, seed=4), Scorer.of(policy, seed=4)
    with torch.no_grad():
        torch.testing.assert_close(fresh.outputs(batch).score, of.outputs(batch).score, atol=1e-6, rtol=0)


def test_gradients_are_those_of_transformers(tmp_path: Path) -> None:
    ours = scorer()
    ours.save(tmp_path)
    model = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = zoo.batch(4)
    parts = prefixes(batch)
    weights = torch.linspace(-1, 1, len(parts))
    score = ours.outputs(batch).score
    assert score is not None
    (score * weights).sum().backward()
    (torch.cat([model(input_ids=part[None]).logits[:, 0] for part in parts]) * weights).sum().backward()
    theirs = dict(model.named_parameters())
    for name, parameter in ours.parameters().items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=2e-5, rtol=1e-4)


def test_a_learner_trains_it_whatever_the_micro_batches() -> None:
    batch = zoo.batch(6)

    def objective(outputs: Any, part: Any) -> Any:
        return 0.01 * (outputs.score - 1.0).square(), {}

    def step(max_tokens: int) -> dict[str, Any]:
        made = scorer()
        learner = LocalLearner(made, max_tokens=max_tokens)
        learner.update(batch, objective)
        return {name: p.detach() for name, p in made.parameters().items()}

    whole, split = step(10_000), step(20)
    assert all(torch.allclose(whole[name], split[name], atol=1e-6) for name in whole)
    after = LocalLearner(scorer()).evaluate(batch)
    assert after.score is not None
    assert len(after.score) == int(batch.action.sum())


@pytest.mark.parametrize("kind", ["reward", "process"])
def test_an_adapter_comes_back_as_one_or_merged(kind: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    zoo.policy().save(tmp_path / "base")
    made = Scorer.from_pretrained(tmp_path / "base", kind=kind, lora="r=4,targets=q_proj+v_proj", seed=2)
    names = set(made.parameters())
    assert sum("score" in name for name in names) == (1 if kind == "reward" else 2)
    assert all("score" in name or ("lora" in name and ("q_proj" in name or "v_proj" in name)) for name in names)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in made.parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    batch = zoo.batch()
    said = made.outputs(batch).score.detach()  # type: ignore[union-attr]

    made.save(tmp_path / "adapter")
    assert "model.safetensors" not in {path.name for path in (tmp_path / "adapter").iterdir()}
    again = Scorer.from_pretrained(tmp_path / "adapter", kind=kind)
    assert set(again.parameters()) == names
    torch.testing.assert_close(again.outputs(batch).score, said, atol=1e-6, rtol=0)
    again.outputs(batch).score.sum().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in again.parameters().values())

    made.save(tmp_path / "merged", merge=True)
    model = AUTO[kind].from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        theirs = torch.cat([model(input_ids=part[None]).logits.reshape(-1, said.shape[-1] if kind == "process" else 1)[-1]
                            for part in prefixes(batch)])  # fmt: skip
    torch.testing.assert_close(theirs, said.flatten(), atol=2e-5, rtol=0)
    torch.testing.assert_close(made.outputs(batch).score.detach(), said)  # type: ignore[union-attr]
    with pytest.raises(TurnwiseError, match="adapter"):
        Scorer.from_pretrained(tmp_path / "adapter", kind="process" if kind == "reward" else "reward")


def test_a_policys_adapter_is_part_of_what_it_begins_with(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    zoo.policy().save(tmp_path / "base")
    policy = Policy.from_pretrained(tmp_path / "base", lora=4)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.add_(0.1)
    policy.save(tmp_path / "adapter")
    policy.save(tmp_path / "merged", merge=True)
    batch = zoo.batch()
    expected = Scorer.from_pretrained(tmp_path / "merged", seed=1).outputs(batch).score
    for made in (Scorer.of(policy, seed=1), Scorer.from_pretrained(tmp_path / "adapter", seed=1)):
        assert not made.has_adapter
        torch.testing.assert_close(made.outputs(batch).score, expected, atol=1e-5, rtol=0)
    assert policy.has_adapter
    # Its base was never stored as it is, so the new adapter is folded in.
    lora = Scorer.of(policy, seed=1, lora=2)
    lora.save(tmp_path / "scorer")
    assert not Scorer.from_pretrained(tmp_path / "scorer").has_adapter


def test_padding_is_never_what_ends_a_text(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = copy.deepcopy(zoo.TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    made = Scorer.of(Policy(zoo.model(zoo.PACKED["qwen2"]), tokenizer))
    assert made.model.config.pad_token_id not in made.renderer.stop
    assert made.tokenizer.pad_token_id == made.model.config.pad_token_id
    assert tokenizer.pad_token == tokenizer.eos_token
    bare = copy.deepcopy(zoo.TOKENIZER)
    bare._special_tokens_map = {"eos_token": bare.eos_token}
    bare._extra_special_tokens = []
    model = zoo.model(zoo.PACKED["qwen2"])
    model.config.pad_token_id = None
    with caplog.at_level(logging.WARNING):
        made = Scorer.of(Policy(model, bare))
    assert made.tokenizer.pad_token_id is not None


def test_what_cannot_score_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TurnwiseError, match=r"mamba.*another base model"):
        Scorer.of(zoo.policy(zoo.OWN["mamba"]))
    with pytest.raises(TurnwiseError, match="'reward' model or a 'process'"):
        scorer("outcome")
    scorer("process").save(tmp_path / "process")
    with pytest.raises(TurnwiseError, match="kind='process'"):
        Scorer.from_pretrained(tmp_path / "process")
    with pytest.raises(TurnwiseError, match="scores, not one that writes"):
        Policy.from_pretrained(tmp_path / "process")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TurnwiseError, match=r"empty.*\n.*config.json"):
        Scorer.from_pretrained(tmp_path / "empty")
    three = hf.LlamaConfig(
        vocab_size=zoo.V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    hf.LlamaForSequenceClassification(three).save_pretrained(tmp_path / "three")
    zoo.TOKENIZER.save_pretrained(tmp_path / "three")
    with pytest.raises(TurnwiseError, match="3 labels and a reward model has 1"):
        Scorer.from_pretrained(tmp_path / "three")
    config = json.loads((tmp_path / "three" / "config.json").read_text())
    config |= {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    (tmp_path / "three" / "config.json").write_text(json.dumps(config))
    with pytest.raises(TurnwiseError, match="cannot load a reward model from folder"):
        Scorer.from_pretrained(tmp_path / "three")
    encoder = hf.BertForSequenceClassification(
        hf.BertConfig(
            vocab_size=zoo.V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            num_labels=1,
        )
    )  # fmt: skip
    with pytest.raises(TurnwiseError, match="causal language model"):
        Scorer(encoder, zoo.TOKENIZER)


def test_a_model_from_scratch_can_score() -> None:
    made = Scorer.of(Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER))
    assert made.packed
