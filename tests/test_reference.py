"""The API reference: (1) it names everything public that is undocumented, (2) and nothing else, (3) it finds arguments
that a docstring invents, (4) a page shows signature, text and sections, (5) pages of deleted modules disappear."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("griffe")

DOCUMENTED = '''
"""A module."""

from dataclasses import dataclass
from os import path

LIMIT = 3
"""A limit."""

_hidden = 4


@dataclass(frozen=True)
class Point:
    """A point.

    Attributes:
        x: Abscissa, with `code` and a <tag>.
    """

    x: float = 0.5

    def norm(self, *, order: int = 2) -> float:
        """Distance from zero.

        Args:
            order: Which norm.

        Raises:
            ValueError: the order is not positive.
        """
        return abs(self.x)

    def _private(self): ...


class Child(Point):
    """Inherits the text of `norm`."""

    def norm(self, *, order: int = 2) -> float:
        return 0.0
'''


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], tuple[int, Path]]:
    """Writes a package with one module of the given source; returns the exit status and the folder of the pages."""
    script = Path(__file__).parent.parent / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", script)
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    package = tmp_path / "src" / "turnwise"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""A package."""\n')

    def run(source: str) -> tuple[int, Path]:
        (package / "part.py").write_text(source.lstrip())
        return reference.main(tmp_path / "pages", package.parent), tmp_path / "pages"

    return run


def test_documented_package_passes(write: Callable[[str], tuple[int, Path]]) -> None:
    status, pages = write(DOCUMENTED)
    assert status == 0
    text = (pages / "turnwise.part.md").read_text()
    for shown in (
        "{py:class} Point(x: float = 0.5)",
        "Abscissa",
        "norm(*, order: int = 2) -> float",
        "- `ValueError`: the",
    ):
        assert shown in text
    for hidden in ("_hidden", "_private", "{py:data} path"):
        assert hidden not in text
    assert "turnwise.part" in (pages / "turnwise.md").read_text()


@pytest.mark.parametrize(
    ("documented", "undocumented", "named"),
    [
        ('"""A module."""', "", "module turnwise.part"),
        ('"""A limit."""', "", "attribute turnwise.part.LIMIT"),
        ('"""Inherits the text of `norm`."""', "", "class turnwise.part.Child"),
        ("x: float = 0.5", "x: float = 0.5\n    y: float = 0.5", "field turnwise.part.Point.y"),
        ("def _private(self)", "def public(self)", "method turnwise.part.Point.public"),
        ("order: Which norm.", "ordre: Which norm.", "argument 'ordre'"),
    ],
)
def test_omission_is_named(
    write: Callable[[str], tuple[int, Path]],
    capsys: pytest.CaptureFixture[str],
    documented: str,
    undocumented: str,
    named: str,
) -> None:
    assert documented in DOCUMENTED
    status, _ = write(DOCUMENTED.replace(documented, undocumented))
    complaints = capsys.readouterr().err.splitlines()
    assert status == 1
    assert len(complaints) == 1
    assert named in complaints[0]
    assert "part.py:" in complaints[0]


def test_stale_page_is_removed(write: Callable[[str], tuple[int, Path]]) -> None:
    _, pages = write(DOCUMENTED)
    (pages / "turnwise.gone.md").write_text("# gone")
    write(DOCUMENTED)
    assert sorted(page.name for page in pages.glob("*.md")) == ["turnwise.md", "turnwise.part.md"]
