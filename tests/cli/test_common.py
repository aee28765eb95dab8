"""What every command shares."""

import errno
import re
import subprocess
import sys

import pytest

from vla_policy.cli.common import user_errors
from vla_policy.interfaces import DataError, Failure, InputError
from vla_policy.robot.kinematics import NoSolution
from vla_policy.rollouts.workers import RolloutError


@pytest.mark.parametrize(
    "error",
    [
        InputError("a.yaml: expected a number, found 'x'"),
        DataError("observation 'state': expected shape (2,), found (3,)"),
        IsADirectoryError(errno.EISDIR, "Is a directory", "out"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory", "out/video.mp4"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "image.png"),
        PermissionError(errno.EACCES, "Permission denied", "out"),
        OSError(errno.EROFS, "Read-only file system", "out"),
        OSError(errno.ENAMETOOLONG, "File name too long", "out"),
        OSError("image.png: expected a picture"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_status_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(error) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    "error",
    [
        Failure("out: expected 1.0 GB of space, found none"),
        RolloutError("simulation worker 0 died (exit code 7)"),
        NoSolution("kinematics: expected a pose that 'tip' can reach"),
        OSError(errno.ENOSPC, "No space left on device", "out"),
        OSError(errno.EIO, "Input/output error", "data.parquet"),
        TimeoutError("the graph: nothing in 10 s"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
)
def test_a_failure_is_one_line_and_status_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(error) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("words", [["bench", "sim"], ["collect", "OUT"]])
@pytest.mark.parametrize("package", ["gymnasium", "shapely"])
def test_a_missing_extra_is_named(words: list[str], package: str) -> None:
    code = f"""
import importlib, sys
sys.modules[{package!r}] = None
importlib.import_module("vla_policy.cli.{words[0]}").main({words[1:]!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {package}: expected the package, found none; in a clone: pip install '.[sim]'\n"


def test_another_missing_module_is_a_fault_of_the_program() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'vla_polcy'"):
        status_of(ModuleNotFoundError("No module named 'vla_polcy'", name="vla_polcy"))


def test_a_fault_of_the_program_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match=re.escape("a bug")):
        status_of(RuntimeError("a bug"))


def status_of(error: Exception) -> int | str | None:
    """The exit status of a command that raises `error`."""

    @user_errors
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize("command", ["dataset", "eval", "bench"])
def test_commands_run_as_modules(command: str) -> None:
    words = [sys.executable, "-m", f"vla_policy.cli.{command}", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, f"usage: vla-{command}" in done.stdout) == (0, True)
