"""Logs of other libraries as transcripts.

They hold text, not token ids, so what was sampled cannot be had back: `turnwise.rollout.episodes_of` tokenises the
transcripts anew, as it does with demonstrations. Their source is therefore "dataset", whoever acted.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from turnwise.episode import Source, Transcript
from turnwise.runs.atomic import disk
from turnwise.runs.errors import RunError

log = logging.getLogger(__name__)

_TRL_OWN = ("mode", "step", "prompt", "completion", "advantage")


def read_trl_completions(path: str | Path, *, rewards: Mapping[str, float] | None = None) -> list[Transcript]:
    """The completions that TRL's GRPO and RLOO trainers log with ``log_completions=True``, one turn each.

    TRL writes ``OUTPUT_DIR/completions/completions_00010.parquet``, one file per logged step, with the columns ``step``,
    ``prompt``, ``completion``, one per reward function under the function's name, those that reward functions add
    themselves, and ``advantage`` (``GRPOTrainer.log`` in ``trl/trainer/grpo_trainer.py``, and the data-set card in
    ``trl/templates/completions_dataset_card.md``). Prompt and completion are decoded without special tokens, so a prompt
    keeps the words of its chat template. Neither the weights of the rewards nor whether a completion was cut off is in
    the log.

    The reward is the weighted sum of the reward columns, those left out that say nothing about this completion; NaN
    where none does. Each column, the advantage and the step are figures in `metrics`. Equal prompts have equal seeds.

    Args:
        path: One file, the folder of files, or the trainer's output folder.
        rewards: column -> weight. By default every column of numbers that is not TRL's own counts with weight 1, which
            includes the numbers that reward functions log besides their rewards.

    Raises:
        RunError: no such files, other columns than these, or a column of `rewards` that is not there.
    """
    seeds: dict[str, int] = {}
    transcripts = []
    for file in _trl_files(Path(path)):
        rows, numeric = _trl_rows(file)
        weights = dict.fromkeys(numeric, 1.0) if rewards is None else rewards
        unknown = sorted(set(weights) - set(numeric))
        if unknown:
            raise RunError(f"{file} has no column of numbers {unknown[0]!r}; it has {sorted(numeric)}")
        for row in rows:
            figures = _figures({name: row.get(name) for name in (*numeric, "step", "advantage")})
            paid = [weight * figures[name] for name, weight in weights.items() if name in figures]
            transcripts.append(
                Transcript(
                    observations=(row["prompt"],),
                    actions=(row["completion"],),
                    rewards=(math.fsum(paid) if paid else math.nan,),
                    terminated=True,
                    truncated=False,
                    env="trl",
                    seed=seeds.setdefault(row["prompt"], len(seeds)),
                    source=Source.DATASET,
                    metrics=figures,
                )
            )
    return transcripts


def _trl_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("completions_*.parquet")) or sorted(path.glob("completions/completions_*.parquet"))
    if not files:
        raise RunError(f"{path} has no completions_*.parquet; TRL writes them with log_completions=True")
    return files


def _trl_rows(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and the names of the columns of numbers that are not TRL's own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with disk(file, "read"):
        data = file.read_bytes()
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise RunError(f"{file} is not a complete Parquet file ({str(error).splitlines()[0]})") from error
    kinds = {field.name: field.type for field in table.schema}
    for name in ("prompt", "completion"):
        if name not in kinds or not (pa.types.is_string(kinds[name]) or pa.types.is_large_string(kinds[name])):
            raise RunError(
                f"{file} has no column of texts {name!r}, so it is no log of TRL's completions; its columns are "
                f"{sorted(kinds)}"
            )
    numbers = (pa.types.is_floating, pa.types.is_integer)
    numeric = [n for n, kind in kinds.items() if n not in _TRL_OWN and any(test(kind) for test in numbers)]
    return table.to_pylist(), [name for name in numeric if not name.startswith("__index")]


def read_verifiers(path: str | Path) -> list[Transcript]:
    """Rollouts that the library verifiers saved, turn by turn.

    Two formats are read, one rollout as a JSON object per line:

    - ``results.jsonl`` with ``prompt`` and ``completion`` (chat messages, or a text each), ``reward``, ``metrics``,
      ``example_id``, ``is_truncated``, ``error`` (``state_to_output`` in ``verifiers/utils/save_utils.py``);
    - ``traces.jsonl`` with ``nodes`` (messages with their parents), ``rewards``, ``metrics``, ``task``, ``errors``
      (``Trace`` in ``verifiers/v1/trace.py``, version 1). Of a trace with branches the last one is read, as
      verifiers' own ``Trace.messages`` does, and the metric ``branches`` says how many there were.

    What the policy said are the actions: an assistant's messages in the completion, with its reasoning as
    ``<think>…</think>`` in front and its tool calls as ``<tool_call>{"name": …, "arguments": …}</tool_call>`` behind.
    Everything between two actions is one observation, the parts separated by a blank line; it is empty where the policy
    spoke twice in a row. The system prompt belongs to the first observation. The reward of the rollout is paid at the
    last turn, NaN if there is none. Rollouts with an error or without an action are left out, with a warning.

    Args:
        path: The file, or the folder it is in. A ``metadata.json`` beside it names the environment.

    Raises:
        RunError: no such file, a line that is no such rollout, or a message that is not text.
    """
    file = _verifiers_file(Path(path))
    env = _environment_name(file.with_name("metadata.json"))
    seeds: dict[str, int] = {}
    transcripts, broken = [], 0
    for number, row in _json_lines(file):
        where = f"line {number} of {file}"
        if isinstance(row.get("nodes"), list):
            rollout = _trace(row, where)
        elif "prompt" in row and "completion" in row:
            rollout = _result(row, where)
        else:
            raise RunError(
                f"{where} is no rollout of verifiers: it has neither `prompt` and `completion` nor `nodes`, but "
                f"{sorted(row)[:12]}"
            )
        if rollout is None:
            broken += 1
            continue
        key = rollout.pop("key")
        seed = key if isinstance(key, int) else seeds.setdefault(str(key), len(seeds))
        transcripts.append(Transcript(**{"env": env, "seed": seed, "source": Source.DATASET, **rollout}))
    if broken:
        log.warning("left out %d rollouts of %s that have an error or no action", broken, file)
    return transcripts


def _verifiers_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in ("results.jsonl", "traces.jsonl"):
        if (path / name).exists():
            return path / name
    raise RunError(f"{path} has neither results.jsonl nor traces.jsonl; give the file itself")


def _environment_name(metadata: Path) -> str:
    try:
        return str(json.loads(metadata.read_text(encoding="utf-8"))["env_id"])
    except (OSError, ValueError, KeyError, TypeError):  # it only names the environment, and may not be there
        return "verifiers"


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with disk(file, "read"):
        data = file.read_bytes()
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RunError(f"{file} is not text in UTF-8; expected one JSON object per line") from error
    written = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for position, (number, line) in enumerate(written):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if position and position == len(written) - 1:
                log.warning("left out the last line of %s: it was cut off while it was written", file)
                return
            raise RunError(
                f"line {number} of {file} is not JSON ({error.msg}); expected one object per line"
            ) from error
        if not isinstance(row, dict):
            raise RunError(f"line {number} of {file} is {type(row).__name__}, not a JSON object")
        yield number, row


def _result(row: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A line of ``results.jsonl``."""
    prompt, completion = row["prompt"], row["completion"]
    if row.get("error") or not completion:
        return None
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else (prompt or [])
    after = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    said = [(message, False) for message in before]
    said += [(message, isinstance(message, dict) and message.get("role") == "assistant") for message in after]
    reward = _number(row.get("reward"))
    rollout = _dialogue(said, math.nan if reward is None else reward, bool(row.get("is_truncated")), where)
    if rollout is None:
        return None
    named = {"env": row["task"]} if isinstance(row.get("task"), str) else {}
    key = row.get("example_id", row.get("id"))
    key = json.dumps(prompt) if key is None else key
    return {**rollout, **named, "key": key, "metrics": _figures(row.get("metrics"))}


def _trace(row: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A line of ``traces.jsonl``."""
    nodes = row["nodes"]
    if (row.get("errors") and not row.get("ok")) or not nodes:
        return None
    parents = [node.get("parent") for node in nodes]
    leaves = [i for i in range(len(nodes)) if i not in parents]
    path: list[int] = []
    at: Any = leaves[-1] if leaves else None
    while isinstance(at, int) and 0 <= at < len(nodes) and len(path) < len(nodes):
        path.append(at)
        at = parents[at]
    if at is not None or not path:
        raise RunError(f"{where} has messages whose parents form no tree")
    said = [(nodes[i].get("message"), bool(nodes[i].get("sampled"))) for i in reversed(path)]
    paid = [reward for reward in (_weighted(r) for r in (row.get("rewards") or {}).values()) if reward is not None]
    truncated = str(row.get("stop_condition") or "").startswith("max_")
    rollout = _dialogue(said, math.fsum(paid) if paid else math.nan, truncated, where)
    if rollout is None:
        return None
    task = row.get("task") or {}
    key = task.get("key") or task.get("hash") or json.dumps(task.get("data"), sort_keys=True)
    figures = {**_figures(row.get("metrics")), "branches": float(len(leaves))}
    named = {"env": str(task["type"])} if task.get("type") else {}
    return {**rollout, **named, "key": str(key), "metrics": figures}


def _dialogue(said: Sequence[tuple[Any, bool]], reward: float, truncated: bool, where: str) -> dict[str, Any] | None:
    """Messages, each with whether the policy said it, as the turns of a transcript; None without an action."""
    observations: list[str] = []
    actions: list[str] = []
    heard: list[str] = []
    for message, sampled in said:
        if not isinstance(message, dict) or "role" not in message:
            raise RunError(f"{where} has the message {message!r:.80}; expected an object with `role` and `content`")
        text = _text(message, where)
        if sampled:
            observations.append("\n\n".join(heard))
            actions.append(text)
            heard = []
        else:
            heard.append(f"assistant: {text}" if message["role"] == "assistant" else text)
    if not actions:
        return None
    return {
        "observations": tuple(observations),
        "actions": tuple(actions),
        "rewards": (*[0.0] * (len(actions) - 1), reward),
        "terminated": not truncated,
        "truncated": truncated,
        "last_obs": "\n\n".join(heard),
    }


def _text(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        parts = content if isinstance(content, list) else [content]
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
            raise RunError(f"{where} has a message that is not text: {content!r:.80}; only text can be read")
        content = "".join(part["text"] for part in parts)
    reasoning = message.get("reasoning_content")
    pieces = [f"<think>{reasoning}</think>"] if isinstance(reasoning, str) and reasoning else []
    pieces += [content] if content else []
    pieces += [_tool_call(call) for call in message.get("tool_calls") or []]
    return "\n".join(pieces)


def _tool_call(call: Any) -> str:
    if isinstance(call, str):  # some versions write each call as a JSON text
        with suppress(json.JSONDecodeError):
            call = json.loads(call)
    if not isinstance(call, dict):
        return f"<tool_call>{call}</tool_call>"
    function = call.get("function") or call
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(json.JSONDecodeError):  # what the model wrote need not be JSON; then it is kept as it was
            arguments = json.loads(arguments)
    written = json.dumps({"name": function.get("name", ""), "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{written}</tool_call>"


def _weighted(reward: Any) -> float | None:
    if not isinstance(reward, dict):
        return _number(reward)
    score, weight = _number(reward.get("score")), _number(reward.get("weight", 1.0))
    return None if score is None or weight is None else score * weight


def _figures(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict):
        return {}
    return {str(name): figure for name, value in metrics.items() if (figure := _number(value)) is not None}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
