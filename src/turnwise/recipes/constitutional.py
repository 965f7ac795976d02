"""What a constitutional run needs besides its algorithm: principles, prompts of the procedure, critics and judges, from plain settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from turnwise.algorithms.settings import SettingsError
from turnwise.envs.registry import EnvSpec
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.engines.chat import Chat
    from turnwise.recipes.settings import Training
    from turnwise.text.principles import Principle

FILES = ("principles.txt", "critique.txt", "revision.txt", "compare.txt")
"""What `write_procedure` writes: an example of principles, and the prompts of the procedure."""


@dataclass(frozen=True)
class Principles:
    """By what replies are criticised, revised and compared, and by whom.

    Attributes:
        principles: File of principles, one a line; `write_procedure` writes an example.
        procedure: Folder with edited prompts of the procedure (critique.txt, revision.txt, compare.txt); empty for those that
            come with turnwise.
        critic: Who criticises: ``rule``, the checkable forms of the principles; ``self``, the policy; or a model as
            ``judge:FOLDER`` or ``judge:URL#MODEL``.
        reviser: Who revises: the critic, or the policy itself.
        judge: Who compares replies in the second phase: ``rule``, ``self`` (the policy as it started), or a model.
        rounds: Critiques and revisions of one reply, each by another principle.
    """

    principles: str = ""
    procedure: str = ""
    critic: str = "rule"
    reviser: Literal["critic", "policy"] = "critic"
    judge: str = "rule"
    rounds: int = 1

    def __post_init__(self) -> None:
        for name in ("critic", "judge"):
            who = getattr(self, name)
            if who not in ("rule", "self") and not who.startswith("judge:"):
                raise SettingsError(
                    f"Principles: {name}={who!r}: it is 'rule', 'self', judge:FOLDER, or judge:URL#MODEL"
                )
        if self.reviser not in ("critic", "policy"):
            raise SettingsError(f"Principles: reviser={self.reviser!r}: it is 'critic' or 'policy'")
        if self.rounds < 1:
            raise SettingsError(f"Principles: rounds={self.rounds}: a reply needs at least one critique and revision")


def write_procedure(folder: str | Path) -> list[Path]:
    """Write an example of principles and the prompts of the procedure into a folder, to be edited; what is there is left alone.

    Returns:
        The files that were written.

    Raises:
        TurnwiseError: the folder cannot be written to.
    """
    from turnwise.text.template import read_template

    written: list[Path] = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            path = Path(folder) / name
            if not path.exists():
                package = "turnwise.teachers" if name == "compare.txt" else "turnwise.text"
                path.write_text(read_template(None, package, name), encoding="utf-8")
                written.append(path)
    except OSError as error:
        raise TurnwiseError(f"cannot write into {str(folder)!r}: {error.strerror}; name another folder") from error
    return written


def check_principles(settings: Principles) -> tuple[Principle, ...]:
    """The principles of a run, checked against who is to judge by them.

    Raises:
        TurnwiseError: no file, a file that cannot be read, or rules where no principle is checkable.
    """
    from turnwise.text.principles import read_principles, require_checks
    from turnwise.text.procedure import Procedure

    own = Path(settings.procedure) / "principles.txt" if settings.procedure else None
    if not settings.principles and own is not None and own.is_file():
        settings = dataclasses.replace(settings, principles=str(own))
    if not settings.principles:
        raise TurnwiseError(
            "constitutional needs a file of principles: --principles FILE; `turnwise data procedure FOLDER` writes an example"
        )
    if settings.procedure and not Path(settings.procedure).is_dir():
        raise TurnwiseError(
            f"there is no folder {settings.procedure!r} with prompts of the procedure; leave it out, or mend it"
        )
    Procedure.read(settings.procedure or None)
    principles = read_principles(settings.principles)
    for who, name in ((settings.critic, "the critic"), (settings.judge, "the judge")):
        if who == "rule":
            require_checks(principles, name)
    return principles


def vocabulary(settings: Principles) -> list[str]:
    """Texts of the procedure that a model from scratch has to know."""
    from turnwise.text.procedure import Procedure

    principles = check_principles(settings)
    procedure = Procedure.read(settings.procedure or None)
    put_in = [principle.check.instead for principle in principles if principle.check is not None]
    return [procedure.critique, procedure.revision, *(principle.text for principle in principles), *put_in]


def make_source(training: Training, world: EnvSpec, policy: Any, settings: Principles) -> Any:
    """The source of a constitutional run: revisions and judged groups of replies to the prompts of `world`.

    Args:
        training: The settings of the run.
        world: A one-turn world over prompts.
        policy: The policy that is trained.
        settings: Principles, critic and judge.

    Returns:
        A `turnwise.rollout.constitution.Constitution`.

    Raises:
        TurnwiseError: principles, critics or judges that cannot be had, or a world without prompts.
    """
    from turnwise.envs.constitution import ConstitutionEnv
    from turnwise.recipes.sources import make_collector
    from turnwise.rollout.constitution import Constitution, by_chat, reviewer
    from turnwise.text.procedure import Procedure, by_rule

    principles, prompts = check_principles(settings), _prompts(world)
    procedure = Procedure.read(settings.procedure or None)
    writer: Any = None
    if settings.critic != "self":
        named = settings.critic
        writer = by_rule if named == "rule" else by_chat(_chat(named, str(policy.device)))
    replies = make_collector(training, world, policy)
    if writer is not None and settings.reviser == "critic":
        revise: Any = reviewer(principles, writer, policy.renderer, procedure=procedure, rounds=settings.rounds)
    else:
        # The whole dialogue has to stay in the context, and is longer than the one turn of a reply.
        lived = dataclasses.replace(training.world, memory=-1, compact=False, max_turns=0)
        make = partial(ConstitutionEnv, prompts, principles, procedure, rounds=settings.rounds, critic=writer)
        revise = make_collector(dataclasses.replace(training, world=lived), world, policy, make_env=make)
    return Constitution(replies, revise, judge_of(settings, principles, policy, replies))


def evaluation_rewards(settings: Principles, policy: Any) -> dict[str, Any]:
    """What pays in an evaluation: minus the violated principles, as far as they can be checked; nothing where none can.

    Raises:
        TurnwiseError: principles that cannot be read.
    """
    from turnwise.rewards.principles import PrincipleReward

    principles = check_principles(settings)
    if not any(principle.check for principle in principles):
        return {}
    return {"principles": (1.0, PrincipleReward(principles, policy.renderer))}


def judge_of(settings: Principles, principles: Sequence[Principle], policy: Any, replies: Any) -> Any:
    """Who pays the groups of replies: a table of rewards, or the replies after a teacher has compared them.

    Raises:
        TurnwiseError: a judge that cannot be loaded.
    """
    if settings.judge == "rule":
        from turnwise.rewards.principles import PrincipleReward

        return {"principles": (1.0, PrincipleReward(principles, policy.renderer))}
    from turnwise.rollout import Asked
    from turnwise.teachers.judge import JudgeTeacher, ModelTeacher
    from turnwise.teachers.principles import by_question

    own = Path(settings.procedure) / "compare.txt" if settings.procedure else None
    options: Any = {"principle": by_question(principles), "template": own if own is not None and own.exists() else None}
    if settings.judge == "self":
        teacher: Any = ModelTeacher(policy.reference(), policy.renderer, **options)
    else:
        teacher = JudgeTeacher(_chat(settings.judge, str(policy.device)), policy.renderer, **options)
    return Asked(replies, teacher, name="principles")


def write_preferences(
    source: Any, renderer: Any, path: str | Path, *, groups: int = 256, group_size: int = 2, iteration: int = 0
) -> int:
    """Write preferences by the principles into a JSONL file: ``prompt``, ``chosen`` and ``rejected``, a pair for each group.

    They are texts; where a prompt is a conversation, all are lists of messages.

    They train a preference model (``turnwise train reward-model --data FILE``), which can then pay `ppo`, or offline `dpo`.

    Args:
        source: Of `make_source`.
        renderer: The policy's.
        path: The file.
        groups: Prompts to reply to.
        group_size: Replies to each; the best and the worst are the pair, and groups that are all alike give none.
        iteration: Which prompts and which noise; another number gives others.

    Returns:
        The number of pairs.

    Raises:
        TurnwiseError: no group has a better and a worse reply, or the file cannot be written.
    """
    import json

    from turnwise.credit import best_and_worst
    from turnwise.text import Conversation, Reader

    reader = Reader(renderer)
    episodes = [e for e in source.rollouts(iteration, groups, group_size) if e.turns and not e.failed]
    # An empty reply has no row: files of preferences hold texts.
    episodes = [e for e in episodes if reader.action(e, 0)]
    pairs = best_and_worst([e.undiscounted_return for e in episodes], [e.group for e in episodes])
    if not pairs:
        raise TurnwiseError(
            f"none of {groups} groups of {group_size} replies has a better and a worse one; ask for more groups or larger ones"
        )
    rows: list[dict[str, Any]] = []
    for better, worse in pairs:
        prompt = reader.observation(episodes[better], 0)
        chosen, rejected = (reader.action(episodes[i], 0) for i in (better, worse))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    if any(isinstance(row["prompt"], Conversation) for row in rows):
        rows = [_as_messages(**row) for row in rows]
    try:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(path).write_text(lines, encoding="utf-8")
    except OSError as error:
        raise TurnwiseError(f"cannot write {str(path)!r}: {error.strerror}; name another file") from error
    return len(rows)


def _as_messages(prompt: str, chosen: str, rejected: str) -> dict[str, list[dict[str, str]]]:
    """A row in messages; a prompt of one text is what the user says."""
    from turnwise.text import Conversation

    asked = prompt if isinstance(prompt, Conversation) else Conversation([{"role": "user", "content": prompt}])
    answers = {
        name: [{"role": "assistant", "content": text}] for name, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {"prompt": list(asked.messages), **answers}


def _chat(name: str, device: str = "cpu") -> Chat:
    """The model behind ``judge:FOLDER`` or ``judge:URL#MODEL``, to talk to."""
    from turnwise.engines import Endpoint
    from turnwise.engines.chat import LocalChat
    from turnwise.recipes.rewards import judge_model
    from turnwise.rewards.named import parse_judge

    spec = parse_judge(name)
    return Endpoint(spec.target, spec.option) if spec.option else LocalChat(judge_model(Path(spec.target), device))


def _prompts(world: EnvSpec) -> list[Any]:
    from turnwise.recipes.rewards import rows_of

    found = rows_of(world)
    if found is not None:
        return list(found[0])
    env = world.make()
    try:
        rows = getattr(env.unwrapped, "rows", None)
    finally:
        env.close()
    if not rows:
        raise TurnwiseError(
            f"{world.id} has no prompts to reply to; constitutional needs a file of prompts (--data FILE) or a PromptEnv"
        )
    return list(rows)
