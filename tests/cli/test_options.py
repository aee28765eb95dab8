"""Every option of every command is stated once, and explained."""

from importlib import resources

import pytest

from vla_policy.cli.common import load_config
from vla_policy.cli.help import config_parser
from vla_policy.cli.options import OPTIONS, Option, explained, options


def dotted(found: list[Option], above: str = "") -> dict[str, Option]:
    return {
        key: option
        for one in found
        for key, option in {above + one.key: one, **dotted(one.below, f"{above}{one.key}.")}.items()
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_explained_and_the_file_repeats_none(name: str) -> None:
    found = dotted(options(*OPTIONS[name].split(":")))
    assert [key for key, option in found.items() if not option.meaning] == []
    lines = resources.files("vla_policy.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith(("#", "defaults:", "  - "))] == []


def test_help_has_defaults_and_what_they_mean() -> None:
    text = config_parser("vla-eval", "", "eval").format_help()
    assert "  scene: pusht          # or pusht_language; the scene: " in text
    assert "  num_envs: 16          # environments whose chunks are computed in batches\n" in text  # inherited
    assert "  disturbance:          # happens once in every episode; " in text
    assert "    magnitude: null     # null: the kind's default\n" in text
    assert "  out: outputs/eval/${now:%Y-%m-%d_%H-%M-%S}" in text
    assert max(map(len, text.splitlines())) <= 122


def test_a_choice_differs_from_what_is_inherited_where_it_says_so() -> None:
    assert "\nnum_envs: 8 " in explained("calibrate")
    assert "\ndetector: whitened_error" in explained("calibrate")  # a constant
    assert "\nplan:                 # how plans are searched\n  solver: cem " in explained("plan")
    assert "\ncameras: [top]        # each timed alone\n" in explained("sim")


@pytest.mark.parametrize("name", ["latency", "sim", "graph"])
def test_what_is_composed_is_what_help_says(name: str) -> None:
    config = load_config(name, [])
    keys = dotted(options(*OPTIONS[name].split(":")))
    assert set(config) == {key for key in keys if "." not in key}
    for key in set(config) - {"scene", "out"}:
        assert str(config[key]).replace("None", "null").replace("'", "") == keys[key].default.replace("''", "")
