"""The last layer answers where something is read: (1) what a model says and learns is the same with it and without, in every
family, for policies and scorers, under an adapter, checkpointed, in mixed precision and in 16 bits, (2) feed-forward work is
done for the tokens that are read alone, (3) who reads nothing, everything or some of it gets the same, (4) whoever listens to
the layer hears all tokens, (5) it leaves no trace in files and copies and can be taken off, (6) layers made otherwise and layers
of others keep their own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from tests.models import zoo
from turnwise.batch import Batch, Outputs
from turnwise.models import Policy, Scorer, last_layer, with_lora
from turnwise.models.checkpointing import checkpointed
from turnwise.models.choices import choice_log_probs
from turnwise.models.packing import Prefixes
from turnwise.models.straight_through import score_through, token_probabilities
from turnwise.models.tree_attention import Tree

INSTALLED = [name for name in zoo.PACKED if not name.startswith("gpt")]
SOME = ("llama, grouped queries", "qwen3", "mixtral")


def layer(model: Any) -> Any:
    return last_layer._last(model.base_model)


def installed(model: Any) -> bool:
    return last_layer._installed(layer(model))


def without(reader: Any) -> Any:
    """The same whose last layer answers everywhere."""
    other = copy.copy(reader)
    other.model = copy.deepcopy(reader.model)
    if isinstance(other, Scorer):
        other._trunk = getattr(other.model, other.model.base_model_prefix)
    if isinstance(other, Policy):
        other.value_head = copy.deepcopy(reader.value_head)
    last_layer.uninstall(other.model.get_base_model().base_model if other.has_adapter else other.model.base_model)
    return other


def valued(family: str = "llama, grouped queries") -> Policy:
    """A policy whose value head says something."""
    policy = zoo.policy(zoo.PACKED[family], value_head=True)
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    return policy


def total(outputs: Outputs) -> Tensor:
    """A sum of all that is said, with a weight for each."""
    said = (outputs.logp, outputs.entropy, outputs.value, outputs.final_value, outputs.score)
    return sum((part * torch.linspace(-1, 1, len(part))).sum() for part in said if part is not None and len(part))  # type: ignore[return-value]


def learnt(reader: Any, batch: Batch) -> tuple[Outputs, dict[str, Tensor]]:
    """What it says, and the gradients of a sum of it."""
    for parameter in reader.parameters().values():
        parameter.grad = None
    outputs = reader.outputs(batch)
    total(outputs).backward()
    return outputs, {name: p.grad.clone() for name, p in reader.parameters().items() if p.grad is not None}


def agree(reader: Any, batch: Batch, tolerance: float = 1e-5) -> None:
    (ours, mine), (theirs, own) = learnt(reader, batch), learnt(without(reader), batch)
    for name in ("logp", "entropy", "value", "final_value", "score"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
    assert mine.keys() == own.keys()
    for name, exact in own.items():
        assert float((mine[name] - exact).norm()) <= tolerance * max(1.0, float(exact.norm())), name


# ---- the same as without ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", zoo.PACKED)
def test_a_policy_says_and_learns_the_same(family: str) -> None:
    policy = valued(family)
    assert installed(policy.model) == (family in INSTALLED)
    agree(policy, zoo.batch(7, fresh=True, bootstrap=True))


@pytest.mark.parametrize("family", zoo.PACKED)
def test_a_scorer_says_and_learns_the_same(family: str) -> None:
    scorer = Scorer.of(zoo.policy(zoo.PACKED[family]))
    assert installed(scorer.model) == (family in INSTALLED)
    agree(scorer, zoo.batch(6))


@pytest.mark.parametrize("family", SOME)
def test_so_does_the_way_through_the_models_own_head(family: str) -> None:
    policy, batch = zoo.policy(zoo.PACKED[family]), zoo.batch(6)
    where = batch.action.nonzero().squeeze(1) - 1
    ours, theirs = policy.forward(batch, where), without(policy).forward(batch, where)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert len(ours[0]) == len(ours[1]) == len(where)


@pytest.mark.parametrize("family", ["qwen3", "phi3"])
@pytest.mark.parametrize("settings", ["r=4", "r=4,dropout=0.3"])
def test_an_adapter_learns_the_same(family: str, settings: str) -> None:
    pytest.importorskip("peft")
    policy = Policy(with_lora(zoo.model(zoo.PACKED[family]), settings), zoo.TOKENIZER)
    assert last_layer._installed(last_layer._last(policy._trunk))
    for name, half in policy.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(half, std=0.1, generator=torch.Generator().manual_seed(0))
    batch = zoo.batch(6)
    if "dropout" not in settings:
        agree(policy, batch)
    else:  # what is dropped depends on how many rows there are
        assert all(bool(torch.isfinite(grad).all()) for grad in learnt(policy, batch)[1].values())
        with torch.no_grad():
            assert torch.equal(policy.outputs(batch).logp, without(policy).outputs(batch).logp)


@pytest.mark.parametrize("family", SOME)
def test_checkpointing_changes_no_bit(family: str) -> None:
    batch = zoo.batch(6, bootstrap=True)
    for reader in (valued(family), Scorer.of(zoo.policy(zoo.PACKED[family]))):
        expected = learnt(reader, batch)
        with checkpointed(reader.model):
            found = learnt(reader, batch)
        assert installed(reader.model)
        assert torch.equal(total(found[0]), total(expected[0]))
        assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


def test_mixed_precision_says_and_learns_the_same() -> None:
    policy, batch = zoo.policy(), zoo.batch(6)
    with torch.autocast("cpu", torch.bfloat16):
        agree(policy, batch, 0.05)


def test_weights_in_16_bits_say_the_same() -> None:
    policy = Policy(zoo.model(zoo.PACKED["qwen2"]).bfloat16(), zoo.TOKENIZER)
    assert installed(policy.model)
    batch = zoo.batch(6)
    with torch.no_grad():
        torch.testing.assert_close(policy.outputs(batch).logp, without(policy).outputs(batch).logp, atol=0.05, rtol=0)


# ---- who reads what --------------------------------------------------------------------------------------------------


def test_the_feed_forward_part_sees_what_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = zoo.policy(), zoo.batch(8)
    seen: list[tuple[int, ...]] = []
    for one in policy.model.model.layers:
        forward = one.mlp.forward
        monkeypatch.setattr(one.mlp, "forward", lambda x, forward=forward: (seen.append(tuple(x.shape)), forward(x))[1])
    policy.outputs(batch)
    prefixes = Prefixes.of(batch, batch.action.nonzero().squeeze(1) - 1)
    assert len(prefixes.read) < len(prefixes.ids)
    assert seen == [(1, len(prefixes.ids), 32), (1, len(prefixes.read), 32)]


def test_every_layer_asks_attention_once() -> None:
    policy, batch = zoo.policy(), zoo.batch(4)
    prefixes = Prefixes.of(batch, batch.action.nonzero().squeeze(1) - 1)
    for keep in (prefixes.read, prefixes.read[::2], prefixes.read[:0]):
        prefixes.plan.calls = 0
        logits, hidden = policy.run(prefixes.ids, prefixes.positions, prefixes.plan, keep)
        assert prefixes.plan.calls == policy.model.config.num_hidden_layers
        whole = Tree.__new__(Tree)
        whole.__dict__ |= vars(prefixes.plan) | {"read": None}
        expected = policy.run(prefixes.ids, prefixes.positions, whole, keep)
        torch.testing.assert_close((logits, hidden), expected, atol=1e-5, rtol=0)
        assert len(logits) == len(hidden) == len(keep)


def test_nothing_and_everything_can_be_read() -> None:
    policy, batch = zoo.policy(), zoo.batch(3)
    nothing = torch.arange(0)
    logits, hidden = policy.forward(batch, nothing)
    assert logits.shape == (0, zoo.V)
    assert hidden.shape == (0, 32)
    (logits.sum() + hidden.sum()).backward()
    everything = torch.arange(len(batch.tokens))
    torch.testing.assert_close(
        policy.forward(batch, everything)[0], without(policy).forward(batch, everything)[0], atol=1e-5, rtol=0
    )


def test_choices_and_soft_tokens_are_the_same() -> None:
    policy = zoo.policy()
    asked = [[{"role": "user", "content": "go north"}], [{"role": "user", "content": "take key door"}]]
    words = ("open", "key")
    np.testing.assert_allclose(
        choice_log_probs(policy, asked, words), choice_log_probs(without(policy), asked, words), atol=1e-5
    )
    judge, batch = Scorer.of(policy, seed=1), zoo.batch(4)
    found: list[Tensor] = []
    for actor, reader in ((policy, judge), (without(policy), without(judge))):
        probabilities = token_probabilities(actor, batch)
        probabilities.retain_grad()
        score = score_through(reader, batch, probabilities)
        score.sum().backward()
        assert probabilities.grad is not None
        found += [probabilities.detach(), score.detach(), probabilities.grad]
    for a, b in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# ---- who listens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "self_attn", "mlp", "mlp.down_proj", "post_attention_layernorm"])
def test_a_hook_hears_every_token(part: str) -> None:
    policy, batch = zoo.policy(), zoo.batch(5)
    expected = policy.outputs(batch).logp
    heard: list[int] = []

    def hook(_module: Any, _args: Any, out: Any) -> None:
        heard.append((out[0] if isinstance(out, tuple) else out).shape[1])

    handle = layer(policy.model).get_submodule(part).register_forward_hook(hook)
    said = policy.outputs(batch).logp
    handle.remove()
    prefixes = Prefixes.of(batch, batch.action.nonzero().squeeze(1) - 1)
    assert heard == [len(prefixes.ids)]
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)
    policy.outputs(batch)
    assert len(heard) == 1


def test_hidden_states_can_be_asked_for() -> None:
    policy, batch = zoo.policy(), zoo.batch(3)
    expected = policy.outputs(batch).logp
    prefixes = Prefixes.of(batch, batch.action.nonzero().squeeze(1) - 1)
    with torch.no_grad():
        states = policy._trunk(
            input_ids=prefixes.ids[None], position_ids=prefixes.positions[None], use_cache=False, plan=prefixes.plan,
            output_hidden_states=True,
        ).hidden_states  # fmt: skip
    assert [state.shape[1] for state in states] == [len(prefixes.ids)] * 3
    torch.testing.assert_close(policy.outputs(batch).logp, expected, atol=1e-5, rtol=0)


# ---- no trace --------------------------------------------------------------------------------------------------------


def test_a_copy_has_a_last_layer_of_its_own() -> None:
    policy, batch = zoo.policy(), zoo.batch(4)
    expected = policy.outputs(batch).logp.detach()
    copied = copy.deepcopy(policy)
    assert installed(copied.model)
    assert vars(layer(copied.model))["forward"].args == (layer(copied.model),)
    reference = policy.reference()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    for other in (copied, reference):
        assert torch.equal(other.outputs(batch).logp.detach(), expected)


def test_files_hold_nothing_of_it(tmp_path: Path) -> None:
    policy, batch = zoo.policy(), zoo.batch(4)
    names = list(zoo.model(zoo.PACKED["llama, grouped queries"]).state_dict())
    assert list(policy.model.state_dict()) == names
    policy.save(tmp_path)
    loaded = Policy.from_pretrained(tmp_path)
    assert installed(loaded.model)
    assert torch.equal(loaded.outputs(batch).logp, policy.outputs(batch).logp)


def test_it_can_be_taken_off() -> None:
    policy = zoo.policy()
    for _ in range(2):
        last_layer.uninstall(policy._trunk)
        assert "forward" not in vars(layer(policy.model))
    assert last_layer.install(policy._trunk)
    assert last_layer.install(policy._trunk)
    assert installed(policy.model)


# ---- layers that keep their own --------------------------------------------------------------------------------------


def scaled() -> Any:
    """Its layers scale what they add."""
    config = hf.GraniteConfig(
        vocab_size=zoo.V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.2, residual_multiplier=0.5,
    )  # fmt: skip
    return hf.GraniteForCausalLM(config)


def normed() -> Any:
    """Its layers norm what attention says, and call that norm what others call the one before the feed-forward part."""
    config = hf.Gemma2Config(
        vocab_size=zoo.V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    return hf.Gemma2ForCausalLM(config)


@pytest.mark.parametrize("make", [scaled, normed, *(zoo.PACKED[name] for name in ("gpt neox", "gpt2"))])
@pytest.mark.parametrize("silent", [False, True])
def test_layers_made_otherwise_keep_their_own(make: Any, silent: bool) -> None:
    model = zoo.model(make)
    if silent:  # layers that add nothing yet all look alike
        with torch.no_grad():
            for part in model.base_model.modules():
                if isinstance(part, torch.nn.Linear):
                    part.weight.zero_()
    before = [dict(vars(part)) for part in model.modules()]
    assert not last_layer.install(model.base_model)
    assert [dict(vars(part)) for part in model.modules()] == before


@pytest.mark.parametrize("family", zoo.OWN)
def test_padded_models_are_left_alone(family: str) -> None:
    policy = zoo.policy(zoo.OWN[family])
    assert layer(policy.model) is None or "forward" not in vars(layer(policy.model))


def test_the_forward_of_somebody_else_stays() -> None:
    model, batch = zoo.model(zoo.PACKED["qwen2"]), zoo.batch(4)
    theirs = type(layer(model)).forward.__get__(layer(model))
    layer(model).forward = theirs
    policy = Policy(model, zoo.TOKENIZER)
    assert policy.packed
    assert vars(layer(model))["forward"] is theirs
    expected = zoo.policy(zoo.PACKED["qwen2"]).outputs(batch).logp
    torch.testing.assert_close(policy.outputs(batch).logp, expected, atol=1e-5, rtol=0)


def test_a_forward_that_somebody_wraps_still_reads_less() -> None:
    policy, batch = zoo.policy(), zoo.batch(4)
    expected = policy.outputs(batch).logp
    ours = layer(policy.model).forward
    layer(policy.model).forward = lambda *args, **kwargs: ours(*args, **kwargs)
    assert torch.equal(policy.outputs(batch).logp, expected)


def test_a_model_that_says_something_else_with_it_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "_is_usual", lambda _layer: True)
    policy = Policy(zoo.model(scaled), zoo.TOKENIZER)
    assert policy.packed
    assert "forward" not in vars(layer(policy.model))
