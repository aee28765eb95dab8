"""Commands as a person types them, in this process: torch is imported once, not by every command."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from hydra.core.singleton import Singleton

from vla_policy.cli.train import main


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
            main()
    except SystemExit as leave:
        status = leave.code
    finally:
        sys.argv = argv
        Singleton.set_state(state)
    return Done(status, out.getvalue(), err.getvalue())
