"""The reference pages that are generated from the commands."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "reference" / name for name in ("commands.md", "configuration.md")]


def test_the_pages_are_those_of_the_commands(tmp_path: Path) -> None:
    code = "import pathlib, sys; sys.path.insert(0, 'docs'); import generate; "
    code += (
        f"[(pathlib.Path({str(tmp_path)!r}) / path.name).write_text(text) for path, text in generate.pages().items()]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for page in PAGES:
        same = (tmp_path / page.name).read_text() == page.read_text()
        assert same, f"{page.name} is not what the commands say of themselves: run `python docs/generate.py`"


@pytest.mark.parametrize("words", ["vla-eval rollout", "vla-dataset import-bag", "vla-train", "vla-sim"])
def test_every_command_is_in_them(words: str) -> None:
    assert f"# {words}\n" in PAGES[0].read_text()


def test_keys_come_with_what_they_mean() -> None:
    assert "n_episodes: 50" in PAGES[1].read_text()
    assert "# decided before the run" in PAGES[1].read_text()
