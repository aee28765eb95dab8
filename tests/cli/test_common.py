"""What every command shares."""

import subprocess
import sys

import pytest

from vla_policy.cli.common import user_errors
from vla_policy.interfaces import InputError


@pytest.mark.parametrize(
    "error",
    [
        InputError("a.yaml: expected a number, found 'x'"),
        IsADirectoryError(21, "Is a directory", "out"),
        NotADirectoryError(20, "Not a directory", "out/video.mp4"),
        OSError(28, "No space left on device", "out"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    @user_errors
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_fault_of_the_program_is_not_hidden() -> None:
    @user_errors
    def main() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        main()


@pytest.mark.parametrize("command", ["dataset", "eval", "bench"])
def test_commands_run_as_modules(command: str) -> None:
    words = [sys.executable, "-m", f"vla_policy.cli.{command}", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, f"usage: vla-{command}" in done.stdout) == (0, True)
