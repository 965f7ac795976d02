"""TextWorld adventures: a game from a file, or one generated from the seed.

    make("textworld", rooms=3, objects=6, quest=4)     a new game for every seed
    make("textworld", game="games/zork.z8")            one game; the seed is handed to it

Generated games and ``.json`` files need no compiler and run several times faster than ``.z8`` files, but TextWorld
gives no prose for them: the observation is put together here from the facts of the game, what is in the room, what is
held, where the ways lead. A ``.z8`` game speaks for itself.

The reward is the change of the game's score. A generated game is won by one quest, which pays 1. In a ``.json`` game
a command that the game does not admit costs 0.1.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.text_env import Outcome, TextEnv

MAX_TURNS = 30
"""Default turn limit."""
PENALTY = -0.1
"""Pay for a command that the game does not understand."""
_DIRECTIONS = ("north", "south", "east", "west")
_CONDITIONS = ("open", "closed", "locked")

# Generation draws from one generator of the textworld package, and games are handed over as files.
_generation = threading.Lock()
_games: dict[tuple[int, int, int, int], Path] = {}
_folder: Path | None = None


class TextWorldEnv(TextEnv):
    """A TextWorld game (see the module's text). Made by `make_textworld`.

    Args:
        game: Path of a ``.json`` or ``.z8`` game; None generates a game for every seed.
        max_turns: The episode is truncated after this many commands.
        commands: List the commands that the game admits in every observation.
        rooms: Rooms of a generated game.
        objects: Objects of a generated game.
        quest: Commands that the quest of a generated game takes.
    """

    def __init__(
        self,
        game: str | None = None,
        *,
        max_turns: int = MAX_TURNS,
        commands: bool = True,
        rooms: int = 2,
        objects: int = 4,
        quest: int = 3,
    ) -> None:
        super().__init__("textworld", max_turns)
        if game is not None and not Path(game).is_file():
            raise EnvError(f"there is no game {game!r}; generate one with TextWorld's tw-make, or leave `game` out")
        if game is not None and not game.endswith((".json", ".z8", ".z5", ".ulx")):
            raise EnvError(f"{game!r} is not a game that TextWorld plays; it needs the ending .json or .z8")
        self._game = game
        self._commands = commands
        self._size = (rooms, objects, quest)
        self._inner: Any = None
        self._state: Any = None
        self._score = 0.0
        self._invalid = 0
        self._from_facts = game is None or game.endswith(".json")

    def begin(self, seed: int) -> str:
        import textworld

        self.close()
        path = self._game if self._game is not None else str(_generate(seed, *self._size))
        wanted = dict(objective=True, admissible_commands=True, policy_commands=True, won=True, lost=True, score=True)
        infos = textworld.EnvInfos(**wanted, facts=self._from_facts)
        self._inner = textworld.start(path, infos)
        if hasattr(self._inner, "seed"):
            self._inner.seed(seed)
        self._state = self._inner.reset()
        self._score, self._invalid = 0.0, 0
        if not self._from_facts:
            return self._state.feedback.strip() + self._choices()
        return f"{self._state.objective.strip()}\n{self._describe()}"

    def act(self, text: str) -> Outcome:
        command = " ".join(text[:200].split())
        if self._from_facts and command not in self._admitted():
            self._invalid += 1
            return Outcome(f"not understood\n{self._describe()}", PENALTY)
        self._state, score, done = self._inner.step(command)
        reward, self._score = float(score or 0.0) - self._score, float(score or 0.0)
        observation = self._describe() if self._from_facts else self._state.feedback.strip() + self._choices()
        return Outcome(observation, reward, bool(done))

    def goal(self) -> str | None:
        return self._state.objective if self._state is not None else None

    def metrics(self) -> dict[str, float]:
        return {"success": float(bool(self._state.won)), "invalid": float(self._invalid)}

    def legal_actions(self) -> tuple[str, ...]:
        if not self._admitted():
            raise NotOffered("this TextWorld game does not say which commands it admits")
        return self._admitted()

    def optimal_action(self) -> str:
        if not self._state.policy_commands:
            raise NotOffered("this TextWorld game gives no winning commands from here; use skill=0 demonstrations")
        return self._state.policy_commands[0]

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def _admitted(self) -> tuple[str, ...]:
        return tuple(self._state.admissible_commands or ())

    def _choices(self) -> str:
        return f"\ncommands : {' , '.join(self._admitted())}" if self._commands and self._admitted() else ""

    def _describe(self) -> str:
        return describe(self._state.facts) + self._choices()


def describe(facts: Any) -> str:
    """The room of the player in words, from the facts of the game; what is in a closed container is not told."""
    facts = sorted((fact.name, tuple(v.name for v in fact.arguments)) for fact in facts)
    room = next(names[1] for kind, names in facts if kind == "at" and names[0] == "P")
    condition = {names[0]: kind for kind, names in facts if kind in _CONDITIONS}
    inside: dict[str, list[str]] = {}
    for kind, names in facts:
        if kind in ("in", "on"):
            inside.setdefault(names[1], []).append(names[0])

    def thing(name: str) -> str:
        text = f"{condition[name]} {name}" if name in condition else name
        if name in inside and condition.get(name) not in ("closed", "locked"):
            text += f" with {' and '.join(inside[name])}"
        return text

    lines = [f"you are in the {room}"]
    lines += [thing(names[0]) for kind, names in facts if kind == "at" and names[1] == room and names[0] != "P"]
    doors = {(names[0], names[2]): names[1] for kind, names in facts if kind == "link"}
    for kind, names in facts:
        way = kind.removesuffix("_of")
        if way in _DIRECTIONS and names[1] == room:
            door = doors.get((room, names[0]))
            through = f" through {thing(door)}" if door is not None else ""
            lines.append(f"{way} {names[0]}{through}")
    lines.append(f"carrying {' and '.join(inside.get('I', [])) or 'nothing'}")
    return " ; ".join(lines)


def _generate(seed: int, rooms: int, objects: int, quest: int) -> Path:
    import textworld
    from textworld.generator import make_game

    global _folder
    key = (seed, rooms, objects, quest)
    with _generation:
        if key not in _games:
            if _folder is None:
                _folder = Path(tempfile.mkdtemp(prefix="turnwise-textworld-"))
                atexit.register(shutil.rmtree, _folder, ignore_errors=True)
            options = textworld.GameOptions()
            options.seeds = seed
            options.nb_rooms, options.nb_objects, options.quest_length = rooms, objects, quest
            path = _folder / f"{seed}-{rooms}-{objects}-{quest}.json"
            make_game(options).save(str(path))
            _games[key] = path
        return _games[key]


def make_textworld(game: str | None = None, **options: Any) -> TextWorldEnv:
    """A TextWorld game, see `TextWorldEnv` for the options.

    Raises:
        EnvError: the package textworld is not installed, or there is no such game.
    """
    try:
        import textworld  # noqa: F401
    except ImportError as error:
        raise EnvError('TextWorld games need the package textworld: pip install "turnwise[textworld]"') from error
    return TextWorldEnv(game, **options)
