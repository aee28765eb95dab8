"""Commands as a person types them, in this process: torch is imported once, not by every command."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest
from hydra.core.singleton import Singleton

from vla_policy.cli.train import main as vla_train


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def train(*words: object) -> Done:
    """`vla-train` with these words."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv, state = sys.argv, Singleton.get_state()  # a Hydra program leaves its configuration behind
    sys.argv = ["vla-train", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            vla_train()
    except SystemExit as leave:
        status = leave.code
    finally:
        sys.argv = argv
        Singleton.set_state(state)
    return Done(status, out.getvalue(), err.getvalue())


def error_of(main: Callable[[list[str]], None], *words: object) -> str:
    """What a command says of these words on stderr; it must end with status 2 and an error of one line."""
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    *usage, last = err.getvalue().splitlines()
    assert "error: " in last
    assert not usage or usage[0].startswith("usage: ")  # argparse repeats it
    return last
