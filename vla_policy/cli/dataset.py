"""vla-dataset: import, inspect and rearrange datasets."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from sim import geometry
from vla_policy.cli.common import user_errors
from vla_policy.data.pusht_import import PixelMap, import_pusht
from vla_policy.interfaces import InputError

TASK = "Push the T-shaped block onto the T-shaped target."
console = Console()


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    parser = argparse.ArgumentParser(prog="vla-dataset", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("import-pusht", help="turn the public PushT demonstrations into a dataset")
    command.add_argument("FILE", help=".npz or zarr folder of the demonstrations")
    command.add_argument("OUT", help="folder of the new dataset")
    command.add_argument("overrides", nargs="*", help="images=true codec=h264")
    command.set_defaults(run=_import_pusht)
    options = parser.parse_args(arguments)
    options.run(options)


def overrides(given: Iterable[str], **defaults: object) -> dict[str, object]:
    """`key=value` words on top of `defaults`; a value takes the type of its default."""
    values = dict(defaults)
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or key not in defaults:
            raise InputError(
                f"override: expected one of {', '.join(f'{k}={v}' for k, v in defaults.items())}, found {word!r}"
            )
        if isinstance(defaults[key], bool):
            if text.lower() not in ("true", "false"):
                raise InputError(f"{key}: expected true or false, found {text!r}")
            values[key] = text.lower() == "true"
        else:
            values[key] = text
    return values


def _pixel_map() -> PixelMap:
    def pose_features(pose: np.ndarray) -> np.ndarray:
        return geometry.pose_features(geometry.pose_from_pixels(pose))

    return PixelMap(geometry.position_from_pixels, pose_features)


def _import_pusht(options: argparse.Namespace) -> None:
    chosen = overrides(options.overrides, images=True, codec="h264")
    writer = import_pusht(
        options.FILE,
        options.OUT,
        _pixel_map(),
        TASK,
        bool(chosen["images"]),
        str(chosen["codec"]),
        lambda episodes: track(episodes, "importing"),
    )
    console.print(f"{writer.num_episodes} episodes, {writer.num_frames} frames in {options.OUT}")


if __name__ == "__main__":
    main()
