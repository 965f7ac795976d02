"""The commands on the migration page are commands: every method exists, and every flag belongs to it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from turnwise import algorithms
from turnwise.recipes.flat import settings

PAGE = (Path(__file__).parent.parent / "docs" / "migrating-from-trl.md").read_text().replace("\\\n", " ")
COMMANDS = sorted(set(re.findall(r"turnwise train ([a-z][^`\n|]*)", PAGE)))


def test_there_are_commands_for_every_trainer() -> None:
    heads = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    for trainer in ("SFT", "DPO", "CPO", "ORPO", "KTO", "Reward", "PRM", "GRPO", "RLOO", "PPO", "OnlineDPO"):
        assert any(f"{trainer}Trainer" in head for head in heads), trainer
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_a_method_and_its_settings(command: str) -> None:
    words = shlex.split(command.partition("  #")[0])
    known = settings(getattr(algorithms, algorithms.NAMES[words[0]]))
    for word in words[1:]:
        if word.startswith("--"):
            name = word.removeprefix("--").partition("=")[0].replace("-", "_")
            assert name in known or name.removeprefix("no_") in known or name == "out", f"{words[0]} has no {word}"
