"""Subcommands of vla-eval and vla-bench."""

import importlib
import subprocess
import sys

import pytest

from vla_policy.cli import bench, calibrate, dataset, eval
from vla_policy.cli.eval import rollout


def status_of(main, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("command", [eval, bench, dataset, calibrate])
def test_the_help_lists_every_subcommand_and_each_has_its_own(command, capsys: pytest.CaptureFixture[str]) -> None:
    prog = f"vla-{command.__name__.rpartition('.')[2]}"
    assert status_of(command.main, "--help") == 0
    overview = capsys.readouterr().out
    for name in command.SUBCOMMANDS:
        assert f"{prog} {name} " in overview
        assert "_" not in name
        assert status_of(command.main, name, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: {prog} {name} ")


def test_every_subcommand_is_imported_when_it_is_asked_for() -> None:
    heavy = "(m for m in ('torch', 'sim', 'matplotlib') if m in sys.modules)"
    code = f"import sys, vla_policy.cli.eval, vla_policy.cli.dataset; print(*{heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        (["rollout", "swap"], ["swap"]),
        (["./swap", "seed=1"], ["./swap", "seed=1"]),
        (["mine", "seed=1"], ["mine", "seed=1"]),
        (["baseline=hold"], ["baseline=hold"]),
        ([], []),
    ],
)
def test_a_checkpoint_may_be_called_like_a_subcommand(
    arguments: list[str], rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[list[str]] = []
    monkeypatch.setattr(rollout, "main", lambda words: played.append(list(words)))
    eval.main(arguments)
    assert played == [rest]


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        (eval, "open_loop", "vla-eval open-loop"),
        (eval, "world_model", "vla-eval world-model"),
        (bench, "demonstrations", "vla-eval demonstrations"),
        (bench, "objectives", "vla-eval objectives"),
    ],
)
def test_an_old_name_points_to_the_new_one(command, old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(command.main, old, "somewhere") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert new in message
    name = new.split()[1]
    assert name in eval.SUBCOMMANDS
    importlib.import_module(f"vla_policy.cli.eval.{name.replace('-', '_')}")


def test_an_unknown_subcommand_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(bench.main, "speed") == 2
    assert "invalid choice: 'speed'" in capsys.readouterr().err
