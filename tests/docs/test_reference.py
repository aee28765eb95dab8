"""The reference pages that are generated from the commands."""

import importlib.util
from pathlib import Path

import pytest
from hydra.core.singleton import Singleton

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "reference" / name for name in ("commands.md", "configuration.md")]


def test_the_pages_are_those_of_the_commands() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    state = Singleton.get_state()  # vla-train leaves its configuration behind
    try:
        generated = generate.pages()
    finally:
        Singleton.set_state(state)
    assert set(generated) == set(PAGES)
    for page, text in generated.items():
        assert text == page.read_text(), f"{page.name} differs from the commands' help: run `python docs/generate.py`"


@pytest.mark.parametrize("words", ["vla-eval rollout", "vla-dataset import-bag", "vla-train", "vla-sim"])
def test_every_command_is_in_them(words: str) -> None:
    assert f"# {words}\n" in PAGES[0].read_text()


def test_keys_come_with_what_they_mean() -> None:
    assert "n_episodes: 50" in PAGES[1].read_text()
    assert "# decided before the run" in PAGES[1].read_text()
