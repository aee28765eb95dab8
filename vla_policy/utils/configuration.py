"""Configuration from `vla_policy/conf` and `key=value` words, as every command and library call reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vla_policy.interfaces import InputError
from vla_policy.utils.options import OPTIONS, store_options, values_like_groups

T = TypeVar("T")
# Keys whose values are paths or sentences, also where they look like numbers.
TEXTS = {
    *("root", "run_dir", "init_from", "dataset", "monitor", "contract", "out", "cache_dir", "human", "study", "path"),
    *("server", "host", "certificate", "key"),
    *("draft", "instruction", "paraphrases"),
}


def quoted_words(words: Sequence[str], sweep: bool = False) -> list[str]:
    """`key=value` words with quotes around values that are not Hydra syntax: paths and sentences with letters outside
    ASCII, parentheses, quotes, `=`, commas, blanks at an end; and around numbers where a path or a sentence is
    expected. `${...}` in a path that exists is its name, elsewhere an interpolation. With `sweep`, commas separate
    values.
    """
    quoted = [_quoted_word(word, sweep) for word in words]
    for word in quoted:
        _require_choice(word)
    return quoted


def _require_choice(word: str) -> None:
    """`InputError` for a group's choice that it does not have: Hydra prints a traceback or its search path."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:  # no override: an option, or a path
        return
    group = files("vla_policy.conf") / override.key_or_group
    if override.is_sweep_override() or override.is_delete() or not group.is_dir():
        return
    value = override.value()
    names = {entry.name for entry in group.iterdir()} | set(ConfigStore.instance().repo.get(override.key_or_group, {}))
    known = sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and choice not in known:
            raise InputError(f"{override.key_or_group}: expected one of {known}, found {value!r}")


def _quoted_word(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    as_text = key.rpartition(".")[2] in TEXTS
    if not equals or word.startswith("-"):
        return word
    if value != value.strip() and not sweep and (_is_text(word) or (as_text and _is_number(word))):
        return f"{key}={_quoted(value)}"
    if _is_syntax(word, sweep) and not as_text:
        return word
    if value.startswith("[") and value.endswith("]"):
        quoted = f"{key}=[{','.join(_item(item, as_text) for item in _items(value[1:-1]))}]"
    elif sweep or _is_syntax(word, sweep):
        quoted = f"{key}={','.join(_item(item, as_text, sweep) for item in _items(value))}"
    else:
        quoted = ""
    return quoted if quoted and _is_syntax(quoted, sweep) else f"{key}={_quoted(value)}"


def _item(text: str, as_text: bool, sweep: bool = False) -> str:
    word = f"key={text}"
    plain = _is_syntax(word, sweep) and not (as_text and (_is_number(word) or _names_a_path(text)))
    return text if plain else _quoted(text.strip())


def _items(text: str) -> Iterator[str]:
    """The parts between commas outside brackets and outside quotes that open a part."""
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


def _is_number(word: str) -> bool:
    """Whether Hydra reads the value as a number or as true or false."""
    return isinstance(OverridesParser.create().parse_override(word).value(), int | float)


def _is_text(word: str) -> bool:
    """Whether Hydra reads the value as a string, or not at all."""
    try:
        return isinstance(OverridesParser.create().parse_override(word).value(), str)
    except HydraException:
        return True


def _names_a_path(text: str) -> bool:
    """Whether there is a file or a folder whose name OmegaConf would take for an interpolation."""
    path = Path(text.strip())
    return any("${" in part.name and part.exists() for part in (path, *path.parents))


def _quoted(text: str) -> str:
    return QuotedString(literal(text) if _names_a_path(text) else text, Quote.single).with_quotes()


def literal(value: Any) -> Any:
    """A value, or a container of values, in which OmegaConf finds no interpolations."""
    if isinstance(value, dict):
        return {key: literal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [literal(each) for each in value]
    return value.replace("${", r"\${") if isinstance(value, str) else value


def refuse_task(words: Sequence[str]) -> None:
    """`InputError` for an override of `task`, the former name of the group `scene`."""
    for word in words:
        if re.match(r"[+~]*task[.=@]", word):
            raise InputError(
                "task: expected scene=, which chooses the simulated scene (scene=pusht_language, "
                f"scene.max_episode_steps=100), found {word!r}"
            )


def load_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose `vla_policy/conf/<name>.yaml` with `key=value` overrides."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise InputError(f"override: expected key=value, found {override!r}")
    refuse_task(overrides)
    store_options(name)
    plain = [word for word in overrides if word.partition("=")[0] in values_like_groups(name)]
    values = {word.partition("=")[0]: None if word.endswith("=null") else _text(word) for word in plain}
    words = quoted_words([word for word in overrides if word.partition("=")[0] not in values])
    known = GlobalHydra.instance().is_initialized()  # within a program of Hydra's, whose search path is ours
    with nullcontext() if known else initialize_config_module("vla_policy.conf", version_base="1.3"):
        return cast(DictConfig, OmegaConf.merge(compose(name, overrides=words), literal(values)))


def read_config(name: str, overrides: Sequence[str]) -> Any:
    """conf/<name>.yaml with overrides as the dataclass that `OPTIONS` names, which is imported only now."""
    module, _, kind = OPTIONS[name].partition(":")
    return typed_config(getattr(import_module(module), kind), name, overrides)


def typed_config(kind: Callable[..., T], name: str, overrides: Sequence[str]) -> T:
    """conf/<name>.yaml with overrides as the dataclass `kind`; unknown keys and values of a wrong type are errors."""
    return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), load_config(name, overrides))))


def options(overrides: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` words on top of the `defaults` of a command without a configuration file.

    A value takes the type of its default: bool, int, float or str; one of None is that of a text which is not empty, or
    of null. `InputError` for another key or type.
    """
    values = dict(defaults)
    for word in overrides:
        key, equals, _ = word.partition("=")
        if not equals or key not in defaults:
            raise InputError(f"override: expected one of {shown(defaults) or 'none'}, found {word!r}")
        text, kind = _text(word), type(defaults[key])
        if defaults[key] is None:
            if not text:
                raise InputError(f"{key}: expected a value, or null for none, found {text!r}")
            values[key] = None if word == f"{key}=null" else text
            continue
        try:
            values[key] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise InputError(f"{key}: expected {what}, found {text!r}") from None
    return values


def shown(defaults: Mapping[str, Any]) -> str:
    """The defaults as words, for help texts and messages."""
    return " ".join(f"{key}={'...' if value in ('', None) else str(value).lower()}" for key, value in defaults.items())


def _text(word: str) -> str:
    """The value of a `key=value` word, without the quotes that may stand around it."""
    (override,) = OverridesParser.create().parse_overrides([_quoted_word(word, sweep=False)])
    value = override.value()
    return value.replace(r"\${", "${") if isinstance(value, str) else word.partition("=")[2]
