"""A mistake is status 2 and one clear line, in every command and subcommand."""

import pytest
from helpers.commands import error_of

from vla_policy.cli import bench, calibrate, collect, dataset, eval, sim

POSITIONAL = {"EPISODE": "0", "FRAME": "0"}  # of the others any text will do
SUBCOMMANDS = [
    (command.main, [name, *(POSITIONAL.get(word, "nowhere") for word in subcommand.arguments.split() if word != "...")])
    for command in (bench, calibrate, dataset, eval)
    for name, subcommand in command.SUBCOMMANDS.items()
    if "=" not in subcommand.arguments  # of those nonsense=1 is a word
]


@pytest.mark.parametrize(
    ("main", "words"),
    [*SUBCOMMANDS, (collect.main, ["nowhere"]), (sim.main, ["nowhere"])],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__module__,
)
def test_an_unknown_key(main, words: list[str]) -> None:
    assert "nonsense" in error_of(main, *words, "nonsense=1")
