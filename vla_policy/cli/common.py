"""What every command shares: overrides, and one clear line instead of a traceback for a user's mistake."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vla_policy.interfaces import InputError

USER_ERRORS = (InputError, HydraException, OmegaConfBaseException, OSError)


def fail(error: BaseException) -> None:
    """Print the error in one place and leave with status 2; the cause is shown where Hydra wraps it."""
    lines = [str(error)]
    if isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
        lines = [_unknown_key(error.__cause__)]
    elif error.__cause__ is not None and isinstance(error, (HydraException, OmegaConfBaseException)):
        lines.append(str(error.__cause__))
    print("error: " + "\n  ".join(lines), file=sys.stderr)
    raise SystemExit(2)


def _unknown_key(error: ConfigAttributeError | ConfigKeyError) -> str:
    """OmegaConf's error in one line; Hydra's would suggest to append the key."""
    parent = error.parent_node
    where = (error.full_key or str(error.key)).rpartition(".")[0]
    keys = sorted(set(map(str, parent)) - {"hydra"}) if isinstance(parent, DictConfig) else []
    return f"{where or 'configuration'}: expected keys out of {keys}, found {str(error.key)!r}"


def user_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command's `main`: mistakes of the user become one line on stderr, Ctrl-C becomes status 130."""

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except USER_ERRORS as error:
            fail(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


def load_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose `vla_policy/conf/<name>.yaml` with `key=value` overrides."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"override: expected key=value, found {override!r}")
    with initialize_config_module("vla_policy.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides))
