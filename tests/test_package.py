"""What is shipped: (1) the wheel holds the whole package, its type marker and license, and nothing else, (2) every
requirement is pinned by a version that satisfies it, (3) pins are versions, never builds, addresses or paths."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    split = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in split}


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    package = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "turnwise").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert package <= names
    assert names == package | metadata
    assert "turnwise/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
    assert any(name.endswith("entry_points.txt") for name in metadata)


@pytest.mark.parametrize("group", ["", *PROJECT["optional-dependencies"]])
def test_requirements_are_pinned_within_their_bounds(group: str) -> None:
    listed = PROJECT["optional-dependencies"][group] if group else PROJECT["dependencies"]
    pinned = pins()
    for requirement in map(Requirement, listed):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} has no pin in constraints.txt"
        assert pinned[name] in requirement.specifier, (
            f"constraints.txt pins {name} {pinned[name]}, outside {requirement}"
        )


def test_pins_are_plain_versions() -> None:
    for name, version in pins().items():
        assert str(Version(version)) == version, name
        assert Version(version).local is None, f"{name} {version} names a build"
