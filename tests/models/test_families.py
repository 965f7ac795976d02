"""Every family says the same packed as through its own forward: (1) packed families run through our attention and give
the log-probabilities and (2) all parameter gradients of transformers' forward, one unpadded sequence at a time;
(3) families we do not compute fall back and say the same too; (4) the head runs at action positions only."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers as hf

from tests.models import zoo
from turnwise.models import Policy, Sampling
from turnwise.models.head import taken_log_probs


@pytest.mark.parametrize("family", zoo.PACKED)
def test_packed_log_probs_and_gradients_are_the_models_own(family: str) -> None:
    policy = Policy(zoo.model(zoo.PACKED[family]), zoo.TOKENIZER)
    assert policy.packed
    batch = zoo.batch(6, fresh=True)
    ours = policy.outputs(batch).logp
    (ours * torch.linspace(-1, 1, len(ours))).sum().backward()

    own = zoo.model(zoo.PACKED[family])
    assert own.config._attn_implementation != "turnwise"
    theirs = zoo.own_log_probs(own, batch)
    (theirs * torch.linspace(-1, 1, len(theirs))).sum().backward()

    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    mine = dict(policy.model.named_parameters())
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None
        scale = max(1.0, float(parameter.grad.abs().max()))
        difference = float((mine[name].grad - parameter.grad).abs().max())
        assert difference <= 1e-5 * scale, (name, difference)


@pytest.mark.parametrize("family", zoo.OWN)
def test_other_families_fall_back_and_agree(family: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        policy = Policy(zoo.model(zoo.OWN[family]), zoo.TOKENIZER)
    assert not policy.packed
    assert "its own forward" in caplog.text
    batch = zoo.batch(5, fresh=True)
    with torch.no_grad():
        ours, theirs = policy.outputs(batch).logp, zoo.own_log_probs(zoo.model(zoo.OWN[family]), batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_second_policy_around_a_model_is_packed_too() -> None:
    first = zoo.policy()
    again = Policy(first.model, zoo.TOKENIZER, value_head=True)
    assert again.packed
    batch = zoo.batch()
    torch.testing.assert_close(again.outputs(batch).logp, first.outputs(batch).logp, atol=0, rtol=0)


def test_the_head_sees_action_positions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = zoo.batch(7)
    n = int(batch.action.sum())
    assert n < len(batch.tokens)
    seen: list[int] = []

    def watched(hidden: torch.Tensor, *rest: Any, **options: Any) -> Any:
        seen.append(len(hidden))
        return taken_log_probs(hidden, *rest, **options)

    monkeypatch.setattr("turnwise.models.policy.taken_log_probs", watched)
    zoo.policy().outputs(batch)
    policy = Policy(zoo.model(scaled), zoo.TOKENIZER)
    assert policy.packed
    head = policy.model.get_output_embeddings()
    head.register_forward_hook(lambda _module, args, out: seen.extend([args[0].shape[-2], out.shape[-2]]))
    said = policy.outputs(batch).logp
    assert seen == [n, n, n]
    torch.testing.assert_close(said, zoo.own_log_probs(zoo.model(scaled), batch), atol=1e-5, rtol=0)


def scaled() -> Any:
    """A model that divides its logits, so that its head is its own affair."""
    config = hf.GraniteConfig(
        vocab_size=zoo.V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.2, logits_scaling=2.0,
    )  # fmt: skip
    return hf.GraniteForCausalLM(config)


def test_a_rotary_embedding_that_depends_on_what_is_read_beside_it_is_held_to_its_constant_range() -> None:
    rope = {"rope_theta": 10000.0, "long_factor": [1.5] * 4, "short_factor": [1.0] * 4}
    config = hf.Phi3Config(
        vocab_size=zoo.V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, original_max_position_embeddings=64, pad_token_id=0,
        rope_parameters={**rope, "rope_type": "longrope", "original_max_position_embeddings": 64},
    )  # fmt: skip
    assert Policy(zoo.model(lambda: hf.Phi3ForCausalLM(config)), zoo.TOKENIZER).context_limit == 64


def test_sequences_do_not_see_each_other() -> None:
    policy = zoo.policy()
    batch = zoo.batch(6)
    whole = policy.outputs(batch).logp.detach()
    order = [4, 0, 5, 2, 1, 3]
    shuffled = batch.select(order)
    where = [torch.arange(int(batch.action.sum()))[(batch.sequence == s)[batch.action]] for s in order]
    torch.testing.assert_close(policy.outputs(shuffled).logp.detach(), whole[torch.cat(where)], atol=1e-5, rtol=0)


def test_temperature_divides_and_banned_ids_renormalise() -> None:
    model = zoo.model(zoo.PACKED["qwen2"])
    model.generation_config.suppress_tokens = [0, 7, 3]
    policy = Policy(model, zoo.TOKENIZER, sampling=Sampling(temperature=0.7))
    batch = zoo.batch(4)
    allowed = ~torch.isin(batch.tokens[batch.action], torch.tensor([0, 3, 7]))
    with torch.no_grad():
        ours = policy.outputs(batch).logp
        own = zoo.model(zoo.PACKED["qwen2"])
        own.generation_config.suppress_tokens = [0, 7, 3]
        theirs = zoo.own_log_probs(own, batch, Sampling(temperature=0.7))
    torch.testing.assert_close(ours[allowed], theirs[allowed], atol=1e-5, rtol=0)
    # A banned token that somebody else took can still be learned from.
    assert torch.isfinite(ours).all()


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Policy(zoo.model(zoo.PACKED["llama, grouped queries"]), zoo.TOKENIZER, value_head=True)
    assert torch.equal(torch.get_rng_state(), before)
