"""What every command shares: overrides, and one clear line instead of a traceback for a user's mistake."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from rich.console import Console

from vla_policy.cli.options import store_options
from vla_policy.interfaces import InputError

USER_ERRORS = (InputError, HydraException, OmegaConfBaseException, OSError)
WIDEST = 1000  # characters of a line that no terminal shows


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


def stdout() -> Console:
    """Where tables go: as wide as the terminal, and wide enough for everything in a pipe or a file."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDEST)


def refuse_task(words: Sequence[str]) -> None:
    """`InputError` for an override of `task`, as the scene's group was called."""
    for word in words:
        if re.match(r"[+~]*task[.=@]", word):
            raise InputError(
                "task: expected scene=, which chooses the simulated scene (scene=pusht_language, "
                f"scene.max_episode_steps=100), found {word!r}"
            )


def as_they_are(words: Sequence[str], sweep: bool = False) -> list[str]:
    """`key=value` words for Hydra, with those values in quotes that are no Hydra syntax: paths and sentences with
    letters outside ASCII, parentheses, quotes, `=`, commas. With `sweep`, commas stand between values.
    """
    return [_as_it_is(word, sweep) for word in words]


def _as_it_is(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-") or _is_syntax(word, sweep):
        return word
    if value.startswith("[") and value.endswith("]"):
        quoted = f"{key}=[{','.join(_item(item) for item in _items(value[1:-1]))}]"
    else:
        quoted = f"{key}={','.join(_item(item) for item in _items(value))}" if sweep else ""
    return quoted if quoted and _is_syntax(quoted, sweep) else f"{key}={_quoted(value)}"


def _item(text: str) -> str:
    return text if _is_syntax(f"key={text}", sweep=False) else _quoted(text.strip())


def _items(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets and in no quotes that open a part."""
    part, depth, quote = "", 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            yield part
            part = ""
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not part.strip():
            quote = character
        depth += (character in "([{") - (character in ")]}")
        part += character
    yield part


def _is_syntax(word: str, sweep: bool) -> bool:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return sweep or not override.is_sweep_override()


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def load_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose `vla_policy/conf/<name>.yaml` with `key=value` overrides."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"override: expected key=value, found {override!r}")
    refuse_task(overrides)
    store_options(name)
    with initialize_config_module("vla_policy.conf", version_base="1.3"):
        return compose(name, overrides=as_they_are(overrides))
