"""The other side: TRL's trainers, with the settings that were fastest for the work when they were tried.

What was tried, and what it did, is in docs/benchmarks.md. Nothing here is a special path: `trainer.train()` runs, and a
callback keeps the time. TRL is imported in this file alone; it is no dependency of the package.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from turnwise.recipes.speed.cases import Case
from turnwise.recipes.speed.material import (
    build_model,
    build_tokenizer,
    first_words,
    never_sampled,
    reward_of,
    stored,
    words,
)
from turnwise.recipes.speed.meter import Meter

_FOREVER = 1_000_000


def run(case: Case, dtype: str, meter: Meter, options: Mapping[str, Any]) -> None:
    """Do steps of the case until the meter says stop.

    Args:
        case: What to do.
        dtype: ``fp32``, or ``bf16`` for autocast of the products, which is how TRL trains in bfloat16.
        meter: Keeps the time.
        options: Settings of the trainer's configuration that replace ours. Besides those: ``rows`` of a forward pass,
            ``attention``, and ``pure``, which keeps the weights in `dtype` too.
    """
    chosen = {**settings(case, dtype), **options}
    meter.settings(**chosen)
    with tempfile.TemporaryDirectory(prefix="turnwise-speed-") as folder:
        _RUN[case.workload](
            case, dtype, meter, chosen if case.workload == "decode" else chosen | {"output_dir": folder}
        )


def settings(case: Case, dtype: str) -> dict[str, Any]:
    """The settings that were fastest for a case when they were tried; docs/benchmarks.md has the trials.

    On a CPU a few rows at a time, with their gradients accumulated, stay in the cache; on a GPU all rows go at once.
    ``rows`` are those of one forward pass. A preallocated cache does not go together with autocast.
    """
    few = case.device == "cpu"
    if case.workload in ("grpo", "turns"):
        rows = min(case.rows, 16 if case.shape.hidden < 256 else 8) if few else case.rows
        return {"rows": rows} | ({"cache_implementation": "static"} if dtype == "fp32" else {})
    if case.workload == "ppo":
        return {"rows": min(case.rows, 16) if few else case.rows}
    if case.workload == "decode":
        return {"cache_implementation": "static", "disable_compile": True} if case.rows >= 64 else {}
    return {"rows": min(case.groups, 8 // case.group_size) if few else case.groups}


def _untyped(name: str) -> Any:
    """A library whose own types are not looked at: it is another release in each process, or none."""
    return import_module(name)


def _model(case: Case, options: dict[str, Any], *, dtype: str, **kind: Any) -> Any:
    """The model as the options want it; they are taken out of them."""
    model = build_model(case, dtype=dtype if options.pop("pure", False) else "fp32", **kind)
    model.set_attn_implementation(options.pop("attention", "sdpa"))
    return model


def _common(case: Case, dtype: str) -> dict[str, Any]:
    return {
        "report_to": "none", "use_cpu": case.device == "cpu",
        "bf16": dtype == "bf16", "gradient_checkpointing": False, "disable_tqdm": True, "logging_strategy": "no",
        "save_strategy": "no", "max_steps": _FOREVER, "lr_scheduler_type": "constant", "learning_rate": 1e-5,
        "seed": 0,
    }  # fmt: skip


def _stepwise(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Stepwise(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.next_or_stop()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.next_or_stop()

    return Stepwise()


# ---- GRPO ------------------------------------------------------------------------------------------------------------


def _grpo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from datasets import Dataset

    trl = _untyped("trl")

    class Timed(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with meter.phase("rollout"):
                out = super()._generate_and_score_completions(inputs)
            mask = out["completion_mask"] * out.get("tool_mask", 1)
            held = int(out["prompt_mask"].sum() + out["completion_mask"].sum())
            meter.count(sampled=int(mask.sum()), tokens=held, rows=len(mask))
            return out

    rows = options.pop("rows")
    generation = {"suppress_tokens": never_sampled(), "max_new_tokens": case.actions}
    model = _model(case, options, dtype=dtype)
    config = trl.GRPOConfig(
        **_common(case, dtype)
        | {
            "per_device_train_batch_size": rows, "gradient_accumulation_steps": case.rows // rows,
            "num_generations": case.group_size, "max_completion_length": case.length - case.prompt,
            "max_tool_calling_iterations": case.turns - 1, "generation_kwargs": generation, "temperature": 1.0,
            "loss_type": "grpo", "beta": 0.0, "num_iterations": 1,
        }
        | options
    )  # fmt: skip
    prompts = [[{"role": "user", "content": first_words(case, seed)}] for seed in range(stored(case))]
    many: dict[str, Any] = {"environment_factory": _tools(case)} if case.turns > 1 else {}

    def reward(completions: Any, **_: Any) -> list[float]:
        return [reward_of(_said(completion)) for completion in completions]

    trainer = Timed(
        model, reward, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=build_tokenizer(case.shape, tools=case.turns > 1), callbacks=[_stepwise(meter)], **many,
    )  # fmt: skip
    trainer.train()


def _said(completion: list[dict[str, Any]]) -> str:
    """The last thing that the model said, as text or as the argument of a call."""
    last = completion[-1]
    calls = last.get("tool_calls")
    return calls[0]["function"]["arguments"]["text"] if calls else last["content"]


def _tools(case: Case) -> Callable[[], Any]:
    class World:
        """Answers every call with words, the same number each time."""

        def reset(self, **_: Any) -> None:
            """Begin an episode."""
            self._turn = 0

        def answer(self, text: str) -> str:
            """Say something.

            Args:
                text: What to say.
            """
            self._turn += 1
            return words(case.shape, case.observation - 2, self._turn)

    return World


# ---- stored data -----------------------------------------------------------------------------------------------------


def _sft(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from datasets import Dataset

    trl = _untyped("trl")

    model = _model(case, options, dtype=dtype)
    config = trl.SFTConfig(**_common(case, dtype) | _batch(case, options) | {"max_length": case.length} | options)
    tokenizer = build_tokenizer(case.shape)
    texts = [tokenizer.encode(words(case.shape, case.length, seed)) for seed in range(stored(case))]
    trainer = trl.SFTTrainer(
        model, args=config, train_dataset=Dataset.from_dict({"input_ids": texts}), processing_class=tokenizer,
        callbacks=[_stepwise(meter)],
    )  # fmt: skip
    _counting(trainer, meter)
    trainer.train()


def _batch(case: Case, options: dict[str, Any]) -> dict[str, Any]:
    rows = options.pop("rows")
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": case.groups // rows}


def _pairs(case: Case) -> dict[str, list[Any]]:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    answer = case.actions - 1
    return {
        "prompt": [said("user", first_words(case, seed)) for seed in range(stored(case))],
        "chosen": [said("assistant", words(case.shape, answer, seed + stored(case))) for seed in range(stored(case))],
        "rejected": [
            said("assistant", words(case.shape, answer, seed + 2 * stored(case))) for seed in range(stored(case))
        ],
    }


def _dpo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from datasets import Dataset

    trl = _untyped("trl")

    model = _model(case, options, dtype=dtype)
    config = trl.DPOConfig(**_common(case, dtype) | _batch(case, options) | {"max_length": case.length} | options)
    trainer = trl.DPOTrainer(
        model, ref_model=copy.deepcopy(model), args=config, train_dataset=Dataset.from_dict(_pairs(case)),
        processing_class=build_tokenizer(case.shape), callbacks=[_stepwise(meter)],
    )  # fmt: skip
    _counting(trainer, meter)
    trainer.train()


def _reward_model(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from datasets import Dataset

    trl = _untyped("trl")

    model = _model(case, options, dtype=dtype, scores=True)
    config = trl.RewardConfig(**_common(case, dtype) | _batch(case, options) | {"max_length": case.length} | options)
    trainer = trl.RewardTrainer(
        model, args=config, train_dataset=Dataset.from_dict(_pairs(case)),
        processing_class=build_tokenizer(case.shape), callbacks=[_stepwise(meter)],
    )  # fmt: skip
    _counting(trainer, meter)
    trainer.train()


# ---- PPO, which TRL had up to 1.12 -----------------------------------------------------------------------------------


def _ppo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from datasets import Dataset

    module = _untyped("trl.experimental.ppo.ppo_trainer")

    rows = options.pop("rows")
    generate = module.batch_generation

    def timed(*given: Any) -> Any:
        with meter.phase("generation"):
            ids, logits = generate(*given)
        meter.count(sampled=len(ids) * case.actions, tokens=ids.numel(), rows=len(ids))
        return ids, logits

    common = {name: value for name, value in _common(case, dtype).items() if name != "max_steps"}
    config = module.PPOConfig(
        **common
        | {
            "per_device_train_batch_size": rows, "gradient_accumulation_steps": case.rows // rows, "num_mini_batches": 1,
            "total_episodes": case.rows * 10_000, "num_ppo_epochs": 1, "response_length": case.actions,
            "local_rollout_forward_batch_size": case.rows, "num_sample_generations": 0, "temperature": 1.0,
        }
        | options
    )  # fmt: skip
    tokenizer = build_tokenizer(case.shape)
    prompts = [tokenizer.encode(f"<user> {first_words(case, seed)} <act>") for seed in range(stored(case))]
    trainer = module.PPOTrainer(
        args=config, processing_class=tokenizer, model=build_model(case),
        ref_model=build_model(case), reward_model=build_model(case, scores=True, seed=1),
        value_model=build_model(case, scores=True, seed=2),
        train_dataset=Dataset.from_dict({"input_ids": prompts}), callbacks=[_stepwise(meter)],
    )  # fmt: skip
    module.batch_generation = timed
    try:
        trainer.train()
    finally:
        module.batch_generation = generate


# ---- decoding alone, by transformers ---------------------------------------------------------------------------------


def _decode(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    import torch

    model = build_model(case, dtype=dtype).eval()
    tokenizer = build_tokenizer(case.shape)
    rows = [tokenizer.encode(f"<user> {first_words(case, row)} <act>") for row in range(case.rows)]
    prompts = torch.tensor(rows, device=case.device)
    while meter.next():
        with torch.no_grad():
            ids = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, max_new_tokens=case.actions,
                **options,
            )  # fmt: skip
        meter.count(sampled=ids.numel() - prompts.numel(), tokens=ids.numel(), rows=case.rows)


def _counting(trainer: Any, meter: Meter) -> None:
    """Count the tokens of each step's inputs."""
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        mask = inputs.get("attention_mask")
        tokens = int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        meter.count(tokens=tokens, rows=len(inputs["input_ids"]))
        return step(model, inputs, *rest, **named)

    trainer.training_step = counted


_RUN: Mapping[str, Callable[[Case, str, Meter, dict[str, Any]], None]] = {
    "grpo": _grpo,
    "turns": _grpo,
    "sft": _sft,
    "dpo": _dpo,
    "reward-model": _reward_model,
    "ppo": _ppo,
    "decode": _decode,
}
