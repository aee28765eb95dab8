"""vla-dataset: import demonstrations, look at a dataset or a robot's contract, replay in simulation, merge files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from vla_policy.cli.common import stdout, user_errors
from vla_policy.data import LeRobotDataset
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.robot.contract import Contract
    from vla_policy.robot.contract.findings import Finding

console = stdout()
RANGES = ("min", "max", "mean", "std")


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    parser = argparse.ArgumentParser(prog="vla-dataset", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[..., None], name: str, text: str, words: Sequence[str], **defaults: Any) -> None:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for word in words:
            sub.add_argument(word, type=int if word in ("EPISODE", "FRAME") else Path)
        sub.add_argument("overrides", nargs="*", metavar="key=value", help=_show(defaults) if defaults else "none")
        if name in ("info", "replay", "contract"):
            sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        sub.set_defaults(run=run, defaults=defaults)

    dataset, out = ("DATASET",), "OUT"
    text = "turn PushT demonstrations (.npz, or zarr in a folder or a zip file) into a dataset; goal_pose=x,y,angle, "
    text += "in pixels and radians, if they were made with another goal than gym-pusht's 256,256,0.785"
    command(_import_pusht, "import-pusht", text, ("FILE", out), images=True, codec="h264", goal_pose="")
    text = "turn ROS 2 bags (.mcap, or folders of bags) into a dataset by a robot's contract, an episode each"
    command(_import_bag, "import-bag", text, ("BAG", out), contract="pusht_sim", failures=False, codec="h264")
    text = "show counts, the range of every feature, and what looks wrong"
    command(_info, "info", text, dataset, videos=True)
    text = "show an episode as a film (out=name.mp4) or as a contact sheet (out=name.png)"
    command(_view, "view", text, (*dataset, "EPISODE"), out="")
    text = "save one frame as it is, a picture a camera, named by it"
    command(_frame, "frame", text, (*dataset, "EPISODE", "FRAME"), out=".")
    text = "send an episode's actions to the simulation and compare where the block goes"
    command(_replay, "replay", text, (*dataset, "EPISODE"), env="pybullet", out="")
    text = "merge many small files into few, without encoding videos again"
    command(_compact, "compact", text, dataset, data_mb=100.0, video_mb=200.0)
    text = "say in words what a robot's contract does, and whether it fits a URDF, a bag or the graph that runs now"
    command(_contract, "contract", text, ("FILE",), urdf="", bag="", graph=False)
    options, more = parser.parse_known_args(arguments)  # argparse takes no positional words behind an option
    if any(word.startswith("-") or "=" not in word for word in more):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    options.overrides += more
    options.run(options, argparse.Namespace(**_overrides(options.overrides, options.defaults)))


def _overrides(given: Iterable[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """`key=value` words on top of `defaults`; a value takes the type of its default."""
    values = dict(defaults)
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or key not in defaults:
            raise InputError(f"override: expected one of {_show(defaults) or 'none'}, found {word!r}")
        kind = type(defaults[key])
        try:
            values[key] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            what = {bool: "true or false", float: "a number"}[kind]
            raise InputError(f"{key}: expected {what}, found {text!r}") from None
    return values


def _numbers(key: str, text: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(word) for word in text.strip("[]").split(",")])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{key}: expected {count} numbers with commas between them, found {text!r}")
    return numbers


def _show(defaults: dict[str, Any]) -> str:
    return " ".join(f"{key}={str(value).lower() if value != '' else '...'}" for key, value in defaults.items())


def _import_pusht(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from sim import TASK, geometry
    from vla_policy.importers.pusht import PixelMap, import_pusht

    def pose_features(pose: np.ndarray) -> np.ndarray:
        return geometry.pose_features(geometry.pose_from_pixels(pose))

    def seen_from(goal: np.ndarray, pose: np.ndarray) -> np.ndarray:
        poses = geometry.pose_from_pixels(pose)
        return geometry.pose_features(np.array([geometry.relative_pose(each, goal) for each in poses]))

    goal_features = None
    if chosen.goal_pose:
        goal_features = partial(seen_from, geometry.pose_from_pixels(_numbers("goal_pose", chosen.goal_pose, 3)))
    pixels = PixelMap(geometry.position_from_pixels, pose_features, goal_features)
    writer = import_pusht(
        options.FILE, options.OUT, pixels, TASK, chosen.images, chosen.codec, lambda e: track(e, "importing")
    )
    _say(f"{writer.num_episodes} episodes, {writer.num_frames} frames in {options.OUT}")


def _import_bag(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    """Status 1 if a bag had to be left out, 2 if nothing could be imported."""
    from vla_policy.importers.bags import import_bags
    from vla_policy.robot.contract import load_contract

    contract = load_contract(chosen.contract)
    try:
        done = import_bags(options.BAG, options.OUT, contract, chosen.failures, chosen.codec, _say)
    except OSError as error:
        raise InputError(f"{options.OUT}: expected to be able to write, found {error}") from None
    total = f"{done.episodes} episodes, {done.frames} frames in {options.OUT}"
    if done.left_out:
        names = ", ".join(bag.name for bag in done.left_out)
        _say(f"{total}; {len(done.left_out)} of {done.bags} bags left out: {names}")
        raise SystemExit(1)
    _say(total)


def _info(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from vla_policy.data.inspection import inspect
    from vla_policy.data.quality import Finding, folded
    from vla_policy.importers.goal_check import goal_findings

    dataset = LeRobotDataset(options.DATASET, strict=False)
    hidden = options.json or not console.is_terminal
    about = inspect(dataset, chosen.videos, lambda e: track(e, "reading", transient=True, disable=hidden))
    about["warnings"] += [finding.to_dict() for finding in goal_findings(dataset)]
    if options.json:
        print(json.dumps(about, indent=2))
        return
    shortest, longest = about["lengths"].values()
    _say(f"{about['root']}: LeRobotDataset {about['version']}")
    _say(
        f"{about['episodes']} episodes of {shortest} to {longest} frames, together {about['frames']} at "
        f"{about['fps']:g} Hz ({about['seconds'] / 60:.1f} minutes)"
    )
    for task in about["tasks"]:
        _say(f"task: {task} ({about['task_frames'][task]} frames)")
    numbers = (Column(what, no_wrap=True) for what in RANGES)  # a narrow terminal breaks names, never numbers
    table = Table(Column("feature", overflow="fold"), *numbers, box=box.SIMPLE_HEAD)
    for key, feature in about["features"].items():
        table.add_row(f"{key} ({' x '.join(map(str, feature['shape']))})")
        colours = feature["dtype"] in ("video", "image")
        names = ["red", "green", "blue"] if colours else feature.get("names") or []
        units = feature.get("units") or []
        for channel in range(len(feature.get("min", []))):
            name = names[channel] if channel < len(names) else str(channel)
            unit = f" [{units[channel]}]" if channel < len(units) else ""
            table.add_row(escape(f"  {name}{unit}"), *(f"{feature[what][channel]:.4g}" for what in RANGES))
    console.print(table)
    for line in folded(Finding.from_dict(warning) for warning in about["warnings"]):
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    _say(f"{len(about['warnings'])} warnings" if about["warnings"] else "nothing looks wrong")


def _view(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from vla_policy.data.pictures import save_episode

    dataset = LeRobotDataset(options.DATASET)
    out = Path(chosen.out or f"episode_{options.EPISODE:06d}.png")
    save_episode(dataset, options.EPISODE, out)
    _say(f"episode {options.EPISODE} is in {out}")


def _frame(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from vla_policy.data.pictures import save_frame

    for path in save_frame(LeRobotDataset(options.DATASET), options.EPISODE, options.FRAME, Path(chosen.out)):
        _say(str(path))


def _replay(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from sim import make_env
    from vla_policy.benchmarks.fidelity import replay_episode
    from vla_policy.data.pictures import caption, save_film

    dataset = LeRobotDataset(options.DATASET)
    env = make_env(chosen.env, cameras=(), render_mode="rgb_array")
    film: list[np.ndarray] = []

    def on_frame(t: int, info: Mapping[str, Any]) -> None:
        if chosen.out:
            line = f"frame {t}, coverage {info['coverage']:.3f}"
            film.append(caption(env.render(), f"episode {options.EPISODE} in {chosen.env}", line))

    with Console(stderr=True).status("replaying"):
        found = replay_episode(dataset, options.EPISODE, env, on_frame)
    env.close()
    if chosen.out:
        save_film(film, Path(chosen.out), round(dataset.fps))
    position, angle = 1000 * found.position_error, np.degrees(found.angle_error)
    coverages = {"recorded": found.recorded_coverage, "replayed": found.coverage}
    about: dict[str, Any] = {
        "episode": options.EPISODE,
        "env": chosen.env,
        "frames": len(position),
        "position_error_mm": {"median": float(np.median(position)), "end": float(position[-1])},
        "angle_error_deg": {"median": float(np.median(angle)), "end": float(angle[-1])},
        "coverage_end": {name: float(values[-1]) for name, values in coverages.items()},
        "max_coverage": {name: float(values.max()) for name, values in coverages.items()},
        "success": {"recorded": found.recorded_success, "replayed": found.success},
    }
    if options.json:
        print(json.dumps(about, indent=2))
        return
    table = Table("", "median", "end", title=f"episode {options.EPISODE}, {len(position)} frames, in {chosen.env}")
    for name, key in (("position error [mm]", "position_error_mm"), ("angle error [degrees]", "angle_error_deg")):
        table.add_row(escape(name), *(f"{about[key][what]:.2f}" for what in ("median", "end")))
    console.print(table)
    for what in coverages:
        _say(
            f"{what}: coverage {about['coverage_end'][what]:.3f} at the end, {about['max_coverage'][what]:.3f} at most"
        )


def _compact(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    from vla_policy.data.compact import compact

    def files() -> int:
        return sum(len(list(options.DATASET.rglob(f"*{suffix}"))) for suffix in (".parquet", ".mp4"))

    before = files()
    compact(options.DATASET, chosen.data_mb, chosen.video_mb, lambda parts: track(parts, "compacting"))
    _say(f"{before} files became {files()} in {options.DATASET}")


def _contract(options: argparse.Namespace, chosen: argparse.Namespace) -> None:
    """Status 1 if something is wrong."""
    from vla_policy.robot import contract_check
    from vla_policy.robot.contract import find_config, findings, load_contract, urdf

    contract = load_contract(options.FILE)
    found = findings.describe(contract)
    if chosen.urdf:
        found += urdf.compare(contract, find_config(chosen.urdf, ".urdf", "urdf"))
    if chosen.bag:
        received = contract_check.read_start_of_bag(Path(chosen.bag), contract)
        found += contract_check.check_observations(contract, received, live=False)
        found += contract_check.check_commands_of_bag(contract, received)
    if chosen.graph:
        found += _check_graph(contract)
    wrong = sum(finding.level == findings.WRONG for finding in found)
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        colours = {findings.OK: None, findings.NOTE: "yellow", findings.WRONG: "red"}
        for level, line in found:
            console.print(f"{level:5} {line}", style=colours[level], markup=False, highlight=False, soft_wrap=True)
        _say(f"{wrong} of {len(found)} findings are wrong" if wrong else "nothing is wrong")
    if wrong:
        raise SystemExit(1)


def _check_graph(contract: Contract) -> list[Finding]:
    try:
        from vla_policy.graph.contract_check import check_graph
    except ImportError as error:
        raise InputError(f"graph: expected ROS 2 to be sourced (or the extra ros), found no {error.name}") from None
    with Console(stderr=True).status("listening"):
        return check_graph(contract)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
