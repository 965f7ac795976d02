"""Rewards by name, as they are written on a command line or in a file of settings.

    environment
    rewards.py:polite=0.5, package.module:score        functions of text; the number is the weight
    runs/reward-model, text:FOLDER                      a reward model or process reward model
    exact, numeric@solution, symbolic, code@tests       verifiers; @ names the column of the known answer
    rule:contains:please, "rule:forbids:a,b"=-1         rules; quotes keep a comma or an equals sign
    judge:http://127.0.0.1:8000/v1#model                a model behind an address, or in a folder: judge:FOLDER
    judge:FOLDER@template.txt                           asked by a template of one's own
    missing-eos=0.5, overlong@256                       what an answer costs that is cut, or too long

What this file leaves out: loading. Whoever resolves names brings what loads functions and models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from turnwise.episode import Episode
from turnwise.rewards.environment import ENVIRONMENT, environment
from turnwise.rewards.functions import Columns, EpisodeJudge
from turnwise.rewards.length import missing_eos, overlong
from turnwise.rewards.reward import Reward, RewardError
from turnwise.rewards.rules import Rule
from turnwise.text import Renderer

COLUMNS: Mapping[str, str] = {"exact": "answer", "numeric": "answer", "symbolic": "answer", "code": "tests"}
"""Verifier -> the column it reads unless another is named."""

_PLAIN = (ENVIRONMENT, *COLUMNS, "missing-eos", "overlong")
_PREFIXES = ("rule:", "judge:", "text:")
_WEIGHT = re.compile(r"(?s)(.*?)\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One reward as it was named.

    Attributes:
        name: What metrics and messages call it.
        weight: What its scores are multiplied by.
        kind: What it is.
        target: The function, folder, rule, address or verifier.
        option: The column of a verifier, the model behind an address, the limit of "overlong".
        template: A file with a judge's question; empty for the default.
    """

    name: str
    weight: float
    kind: Literal[
        "environment", "function", "model", "text-model", "verifier", "rule", "judge", "missing-eos", "overlong"
    ]
    target: str
    option: str = ""
    template: str = ""


@dataclass(frozen=True)
class Loaders:
    """What brings functions and models into this process.

    Attributes:
        function: ``file.py:name`` or ``package.module:name`` -> the function.
        model: (folder of a reward model or process reward model, read by text) -> a reward.
        judge: (folder of a language model, template file or empty) -> a reward.
        endpoint: (address, model, template file or empty) -> a reward.
    """

    function: Callable[[str], Callable[..., Any]]
    model: Callable[[Path, bool], Reward]
    judge: Callable[[Path, str], Reward]
    endpoint: Callable[[str, str, str], Reward]


def parse_rewards(text: str) -> list[RewardSpec]:
    """Read a list of rewards, separated by commas.

    Two rewards of one name are told apart by a number. Folders are looked for, and nothing is loaded.

    Raises:
        RewardError: an empty list, or an entry that is none of the forms, with what may have been meant.
    """
    specs: list[RewardSpec] = []
    for entry in _entries(text):
        spec = _spec(*_weighted(entry))
        taken = {other.name for other in specs}
        n = next(n for n in range(1, len(specs) + 2) if _numbered(spec.name, n) not in taken)
        specs.append(replace(spec, name=_numbered(spec.name, n)))
    if not specs:
        raise RewardError("no reward is named; write for example: exact, missing-eos=0.5")
    return specs


def parse_judge(text: str) -> RewardSpec:
    """Read the name of one model that judges, ``judge:FOLDER`` or ``judge:URL#MODEL``.

    Raises:
        RewardError: no such folder, an address without a model, or a template, which is a reward's alone.
    """
    spec = _judge(text.removeprefix("judge:"), 1.0)
    if spec.template or set(spec.option) & set(", "):
        raise RewardError(f"{text!r} is not one model; write judge:FOLDER or judge:URL#MODEL")
    return spec


def anchored(text: str) -> str:
    """The same list with every file and folder in full, so that it means the same from any other folder.

    Raises:
        RewardError: see `parse_rewards`.
    """
    entries: list[str] = []
    for entry in _entries(text):
        body, weight = _weighted(entry)
        spec = _spec(body, weight)
        where = (
            "" if spec.target.startswith(("http://", "https://")) else str(Path(spec.target).expanduser().absolute())
        )
        template = f"@{Path(spec.template).absolute()}" if spec.template else ""
        if spec.kind == "model" or (spec.kind == "function" and ".py:" in spec.target):
            body = where
        elif spec.kind == "text-model":
            body = f"text:{where}"
        elif spec.kind == "judge":
            body = f"judge:{where or f'{spec.target}#{spec.option}'}{template}"
        quoted = f'"{body}"' if set(body) & set(",=") else body
        entries.append(quoted if weight == 1.0 else f"{quoted}={weight!r}")
    return ", ".join(entries)


def resolve(
    specs: Sequence[RewardSpec],
    renderer: Renderer,
    loaders: Loaders,
    *,
    columns: Columns | None = None,
    known: Iterable[str] = (),
    prompt: Callable[[Episode], str] | None = None,
    form: Literal["text", "messages"] = "text",
    deadline: float = 600.0,
) -> dict[str, tuple[float, Reward]]:
    """The rewards that were named, ready for `turnwise.rollout.Judged`.

    Args:
        specs: See `parse_rewards`.
        renderer: The renderer that the episodes are made with.
        loaders: Bring functions and models.
        columns: Episode -> the columns of its row.
        known: Names of these columns, so that one that is missing is found before anything is rolled out.
        prompt: Episode -> its prompt, word for word; read off its ids by default.
        form: What functions are given.
        deadline: Seconds a function may take for one call.

    Raises:
        RewardError: a verifier's column is not there, or a function is none.
        TurnwiseError: a folder or file that cannot be loaded.
    """
    there = list(known)
    settings: dict[str, Any] = {"form": form, "columns": columns, "prompt": prompt, "deadline": deadline}
    made: dict[str, tuple[float, Reward]] = {}
    for spec in specs:
        made[spec.name] = (spec.weight, _resolved(spec, renderer, loaders, there, settings))
    return made


def _resolved(
    spec: RewardSpec, renderer: Renderer, loaders: Loaders, known: list[str], settings: dict[str, Any]
) -> Reward:
    match spec.kind:
        case "environment":
            return environment
        case "missing-eos":
            return missing_eos(1.0)
        case "overlong":
            limit, buffer = (int(part) for part in spec.option.split(":"))
            return overlong(limit, buffer)
        case "rule":
            return EpisodeJudge(Rule(spec.target), renderer, **settings)
        case "model" | "text-model":
            return loaders.model(Path(spec.target), spec.kind == "text-model")
        case "judge" if spec.option:
            return loaders.endpoint(spec.target, spec.option, spec.template)
        case "judge":
            return loaders.judge(Path(spec.target), spec.template)
        case "verifier":
            return EpisodeJudge(_verifier(spec, known), renderer, **settings)
        case "function":
            function = loaders.function(spec.target)
            if not callable(function):
                raise RewardError(f"{spec.target} is a {type(function).__name__} and no function")
            return EpisodeJudge(function, renderer, **settings)


def _verifier(spec: RewardSpec, known: list[str]) -> Callable[..., Any]:
    from turnwise.rewards.unit_tests import UnitTests
    from turnwise.rewards.verifiers import VERIFIERS

    asked, column = COLUMNS[spec.target], spec.option
    if column not in known:
        near = _near(column, known)
        raise RewardError(
            f"the reward {spec.target!r} reads the known answer in column {column!r}, which the data does not have"
            f"{near}; it has {', '.join(known) or 'no columns'}. Name another one with {spec.target}@COLUMN"
        )
    verifier = UnitTests() if spec.target == "code" else VERIFIERS[spec.target]

    def verify(completions: Sequence[Any], **columns: Any) -> Any:
        return verifier(completions=completions, **{asked: columns[column]})

    verify.__name__ = spec.target
    return verify


def _entries(text: str) -> list[str]:
    """The text cut at commas outside of quotes."""
    parts, quoted = [""], False
    for letter in text:
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    if quoted:
        raise RewardError(f"a quote is not closed in {text!r}")
    return [part.strip() for part in parts if part.strip()]


def _weighted(entry: str) -> tuple[str, float]:
    if entry.startswith('"'):
        inside, _, after = entry[1:].partition('"')
        weight = _WEIGHT.fullmatch(f"x{after}") if after.strip() else None
        if after.strip() and weight is None:
            raise RewardError(f"{after!r} follows {entry[: len(inside) + 2]}; only a weight may, such as =0.5")
        return inside.strip(), float(weight[2]) if weight else 1.0
    found = _WEIGHT.fullmatch(entry)
    return (found[1].strip(), float(found[2])) if found and found[1].strip() else (entry, 1.0)


def _spec(text: str, weight: float) -> RewardSpec:
    head, _, option = text.partition("@")
    if text in (ENVIRONMENT, "missing-eos"):
        return RewardSpec(text, weight, "environment" if text == ENVIRONMENT else "missing-eos", text)
    if head in COLUMNS:
        return RewardSpec(head, weight, "verifier", head, option or COLUMNS[head])
    if head == "overlong":
        return RewardSpec(head, weight, "overlong", head, _limits(option, text))
    if text.startswith("rule:"):
        rule = Rule(text.removeprefix("rule:"))
        return RewardSpec(_name(rule.__name__), weight, "rule", rule.__name__)
    if text.startswith("judge:"):
        return _judge(text.removeprefix("judge:"), weight)
    if text.startswith("text:"):
        folder = _folder(text.removeprefix("text:"), text)
        return RewardSpec(_of_folder(folder), weight, "text-model", str(folder))
    if _FUNCTION.fullmatch(text):
        return RewardSpec(text.rpartition(":")[2], weight, "function", text)
    folder = _folder(text, text)
    return RewardSpec(_of_folder(folder), weight, "model", str(folder))


def _judge(text: str, weight: float) -> RewardSpec:
    where, at, template = text.rpartition("@")
    if not at or not template.endswith(".txt"):
        where, template = text, ""
    if where.startswith(("http://", "https://")):
        address, _, model = where.partition("#")
        if not model:
            raise RewardError(f"judge:{where} does not say which model; write judge:{address}#MODEL")
        return RewardSpec("judge", weight, "judge", address, model, template)
    return RewardSpec("judge", weight, "judge", str(_folder(where, f"judge:{where}")), template=template)


def _limits(option: str, text: str) -> str:
    limit, _, buffer = option.partition(":")
    # DAPO's own numbers: 4,096 of 20,480 tokens (arXiv 2503.14476, section 4.1).
    buffer = buffer or (str(max(1, int(limit) // 5)) if limit.isdecimal() else "")
    if not (limit.isdecimal() and buffer.isdecimal()):
        raise RewardError(f"{text!r} needs a limit in tokens, such as overlong@256 or overlong@256:64")
    return f"{limit}:{buffer}"


def _folder(text: str, entry: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == ".py":
        raise RewardError(f"{entry!r} is a file; name the function in it too: {text}:FUNCTION")
    raise RewardError(
        f"there is no reward {entry!r}{_near(entry, (*_PLAIN, *_PREFIXES))}, and no such folder. Rewards are "
        f"{', '.join(_PLAIN)}, rule:…, judge:…, file.py:function, package.module:function, or the folder of a reward model"
    )


def _near(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _of_folder(folder: Path) -> str:
    return _name(folder.resolve().parent.name if folder.name == "final" else folder.resolve().name)


def _name(text: str) -> str:
    """A name that can stand inside the name of a metric."""
    return re.sub(r"[\s/]+", "-", text.strip())[:40] or "reward"


def _numbered(name: str, n: int) -> str:
    return name if n == 1 else f"{name}-{n}"
