"""LoRA settings and adapters: (1) a line of settings says what it says, and nonsense is named, (2) rank, scale and targets
arrive in the adapter, (3) dropout acts where gradients are taken and nowhere else, repeats, and leaves the global random
state alone, (4) weights in 4 and 8 bits are frozen and an adapter on them learns, where the machine can."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import zoo
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import LoraSettings, Policy, Scorer, build_model, lora_spec, with_lora
from turnwise.objectives import nll, token_mean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (16, LoraSettings(16)),
        ("16", LoraSettings(16)),
        ("r=8", LoraSettings(8)),
        (" rank=8 , lora_alpha=4 ", LoraSettings(8, 4.0)),
        ("r=16,alpha=32,dropout=0.05,targets=q_proj+v_proj", LoraSettings(16, 32.0, 0.05, ("q_proj", "v_proj"))),
        (LoraSettings(2), LoraSettings(2)),
        (0, None),
        ("0", None),
        ("", None),
    ],
)
def test_a_line_of_settings(text: Any, expected: LoraSettings | None) -> None:
    assert lora_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sixteen", r"'sixteen'.*write a rank \(16\)"),
        ("r=16,size=3", "cannot read 'size=3'"),
        ("r=16,alpha", "cannot read 'alpha'"),
        ("alpha=32", "name no rank"),
        ("r=1,r=2", "r is given twice"),
        ("-4", "rank of at least 1"),
        ("r=4,alpha=0", "alpha 0.0"),
        ("r=4,dropout=1", "dropout 1.0"),
        ("r=4.5", "write a rank"),
        ("r=4,alpha=nan", "alpha nan"),
    ],
)
def test_nonsense_is_named_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(TurnwiseError, match=message):
        lora_spec(text)


def test_settings_arrive_in_the_adapter() -> None:
    pytest.importorskip("peft")
    model = with_lora(build_model(zoo.TOKENIZER, seed=3), "r=3,alpha=9,targets=q_proj+v_proj")
    halves = {name: p for name, p in model.named_parameters() if "lora_A" in name}
    assert {name.split(".")[-4] for name in halves} == {"q_proj", "v_proj"}
    assert all(p.shape[0] == 3 for p in halves.values())
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 3.0
    with pytest.raises(TurnwiseError, match=r"q_prog.*linear layers are .*q_proj"):
        with_lora(build_model(zoo.TOKENIZER), "r=3,targets=q_prog")
    with pytest.raises(TurnwiseError, match="rank of at least 1"):
        with_lora(build_model(zoo.TOKENIZER), 0)


def test_dropout_acts_where_gradients_are_taken_and_repeats() -> None:
    pytest.importorskip("peft")
    policy = Policy(with_lora(build_model(zoo.TOKENIZER, seed=3), "r=4,dropout=0.5"), zoo.TOKENIZER)
    batch, other = zoo.batch(), zoo.batch(seed=1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
        looked = [policy.outputs(batch).logp for _ in range(2)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trained = [policy.outputs(batch).logp.detach() for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(looked[0], looked[1])
    assert torch.equal(trained[0], trained[1])
    assert not torch.allclose(looked[0], trained[0], atol=1e-3)
    # Its mask changes with the batch and with the weights.
    learner = LocalLearner(policy, lr=1e-2)
    learner.update(other.weighted(token_mean), nll())
    moved = policy.outputs(batch).logp.detach()
    assert not torch.allclose(moved, trained[0])
    scorer = Scorer.of(Policy(build_model(zoo.TOKENIZER, seed=3), zoo.TOKENIZER), lora="r=4,dropout=0.5")
    with torch.no_grad():
        for name, parameter in scorer.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
        still = scorer.outputs(batch).score
    assert not torch.allclose(scorer.outputs(batch).score.detach(), still, atol=1e-3)  # type: ignore[union-attr, arg-type]


def test_bits_are_checked() -> None:
    with pytest.raises(TurnwiseError, match="use '4bit', '8bit'"):
        Policy.from_pretrained("nowhere", quantise="2bit")  # type: ignore[arg-type]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_without_bitsandbytes_the_extra_is_named(tmp_path: Path) -> None:
    zoo.policy().save(tmp_path)
    with pytest.raises(TurnwiseError, match=r'pip install "turnwise\[quantised\]"'):
        Policy.from_pretrained(tmp_path, quantise="4bit")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bits", "rounding"), [("4bit", 0.8), ("8bit", 0.1)])
def test_an_adapter_learns_on_quantised_weights(bits: Any, rounding: float, tmp_path: Path) -> None:
    Policy(build_model(zoo.TOKENIZER, "small", seed=3), zoo.TOKENIZER).save(tmp_path / "base")
    try:
        policy = Policy.from_pretrained(tmp_path / "base", quantise=bits, lora="r=4")
    except TurnwiseError as error:
        pytest.skip(str(error))
    assert policy.parameters()
    assert all("lora" in name for name in policy.parameters())
    batch = zoo.batch().weighted(token_mean)
    plain = Policy.from_pretrained(tmp_path / "base").outputs(batch).logp.detach()
    before = policy.outputs(batch).logp.detach()
    assert 0 < float((before - plain).abs().mean()) < rounding
    learner = LocalLearner(policy, lr=1e-2)
    for _ in range(5):
        learner.update(batch, nll())
    assert policy.outputs(batch).logp.detach().mean() > before.mean() + 0.1
    policy.save(tmp_path / "adapter")
    again = Policy.from_pretrained(tmp_path / "adapter", quantise=bits)
    # On a CPU 4-bit weights are laid out anew for inference, with coarser scales.
    close = 0.05 if bits == "4bit" else 1e-4
    torch.testing.assert_close(again.outputs(batch).logp, policy.outputs(batch).logp, atol=close, rtol=0)
    with pytest.raises(TurnwiseError, match="rounding"):
        policy.save(tmp_path / "merged", merge=True)
    whole = Policy.from_pretrained(tmp_path / "adapter")
    whole.save(tmp_path / "merged", merge=True)
    scorer = Scorer.from_pretrained(tmp_path / "base", quantise=bits, lora="r=4")
    assert all("lora" in name or "score" in name for name in scorer.parameters())
    scorer.outputs(batch).score.sum().backward()  # type: ignore[union-attr]
