"""What every command shares: errors as one line instead of a traceback, output, the file of the configuration."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from rich.console import Console

from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.exits import exit_status

EXPECTED = (InputError, Failure, HydraException, OmegaConfBaseException, OSError)
EXTRAS = {  # optional packages, by the extra of pyproject.toml that brings them
    **dict.fromkeys(("gymnasium", "matplotlib", "pybullet", "pybullet_data", "pybullet_utils", "shapely"), "sim"),
    **dict.fromkeys(("accelerate", "tensorboard"), "train"),
    **dict.fromkeys(("mcap", "rosbags"), "bags"),
    "websockets": "serve",
    **dict.fromkeys(("cryptography", "segno", "starlette", "uvicorn"), "web"),
}
PIPE_WIDTH = 1000  # characters of a line where there is no terminal to wrap it


def fail(error: BaseException) -> None:
    """Print the error and exit with its `exit_status`; where Hydra wraps an error, its cause is shown."""
    lines = [str(error)]
    if isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
        lines = [_unknown_key(error.__cause__)]
    elif isinstance(error, OmegaConfBaseException):
        lines = [": ".join(filter(None, [error.full_key, lines[0].partition("\n")[0]]))]
    elif error.__cause__ is not None and isinstance(error, HydraException):
        lines.append(str(error.__cause__))
    print("error: " + "\n  ".join(lines), file=sys.stderr)
    raise SystemExit(exit_status(error))


def _missing_extra(error: ModuleNotFoundError) -> InputError:
    """Which extra brings the missing package; raises `error` for any other module, which is a bug."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    return InputError(f"{package}: expected the package, found none; in a clone: pip install '.[{EXTRAS[package]}]'")


def _unknown_key(error: ConfigAttributeError | ConfigKeyError) -> str:
    """OmegaConf's error in one line; Hydra's would suggest to append the key."""
    parent = error.parent_node
    where = (error.full_key or str(error.key)).rpartition(".")[0]
    keys = sorted(set(map(str, parent)) - {"hydra"}) if isinstance(parent, DictConfig) else []
    return f"{where or 'configuration'}: expected keys out of {keys}, found {str(error.key)!r}"


def user_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command's `main`: a mistake of the user is one line on stderr and status 2, a failure one line and
    status 1, Ctrl-C status 130.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except EXPECTED as error:
            fail(error)
        except ModuleNotFoundError as error:
            fail(_missing_extra(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


def stdout() -> Console:
    """Standard output, as wide as the terminal; in a pipe or a file lines are not wrapped."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def print_line(text: str) -> None:
    """Print plain text without markup, highlighting or wrapping."""
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def save_config(config: Any, out: Path) -> None:
    """Write a command's options, a dataclass, to `out`/config.yaml."""
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
