"""Findings of contract checks, and a description of a contract as findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vla_policy.interfaces import STATE
from vla_policy.robot.contract.spec import ARRAY, TWIST, Contract, Output, Source, Stream

OK, NOTE, WRONG = "ok", "note", "wrong"


class Finding(NamedTuple):
    """`level` is OK, NOTE (be aware) or WRONG (would not work)."""

    level: str
    text: str


def describe(contract: Contract) -> list[Finding]:
    """The contract's streams, outputs and limits in words."""
    names = contract.interface.action.names
    found = [Finding(OK, f"{contract.robot_type}: control rate {contract.interface.fps:g} Hz")]
    found += [_of_stream(stream) for stream in contract.streams]
    found += [Finding(OK, _of_output(output, names)) for output in contract.command.outputs]
    found += _of_limits(contract)
    parts: list[Source | Output] = [*contract.stream(STATE).sources, *contract.command.outputs]
    for part in parts:
        found += _of_conversion(part, contract)
    return found


def _of_stream(stream: Stream) -> Finding:
    if stream.is_camera:
        return _of_camera(stream)
    topics = " and ".join(_of_source(source) for source in stream.sources)
    together = f", combined where they are within {stream.slop:g} s" if len(stream.sources) > 1 else ""
    return Finding(OK, f"{stream.key}: {topics}{together}")


def _of_source(source: Source) -> str:
    tip = "" if source.kinematics is None else f" of the tip, computed from the joints {list(source.kinematics.joints)}"
    return f"{list(source.fields)}{tip} of {source.topic}"


def _of_camera(stream: Stream) -> Finding:
    source = stream.source
    region = source.region
    assert region is not None
    height, width, _ = stream.feature.shape
    top, left, rows, columns = region.crop
    text = f"{stream.key}: images of {region.size[0]} x {region.size[1]} on {source.topic}"
    if (rows, columns) != region.size:
        text += f", of which {rows} x {columns} from row {top} and column {left}"
    if (rows, columns) != (height, width):
        text += f", scaled to {height} x {width}"
    stretch = (height / rows) / (width / columns)
    if abs(stretch - 1.0) > 0.02:
        return Finding(NOTE, f"{text}, which stretches their height by {stretch:.2f}: crop them?")
    return Finding(OK, text)


def _of_output(output: Output, names: tuple[str, ...]) -> str:
    channels = [names[channel] for channel in output.channels]
    text = f"action: {channels} to {output.topic} as {output.type.rpartition('/')[2]}, {output.rate:g} Hz"
    if output.inverse is not None:
        text += f", by the joints {list(output.inverse.joints)}"
    if output.type == ARRAY:
        text += "; it has no names: the controller's parameter `joints` has to have this order"
    if output.type == TWIST:
        text += "; velocities, the other axes get 0"
    return text + (f"; constant: {dict(output.constants)}" if output.constants else "")


def _of_limits(contract: Contract) -> Iterator[Finding]:
    command, action = contract.command, contract.interface.action
    for k, name in enumerate(action.names):
        unit = _unit(action.units[k])
        box = f"{command.low[k]:g} to {command.high[k]:g}{unit}, {command.speed[k]:g}{unit}/s"
        behind = contract.timeouts.max_age * command.speed[k]
        text = f"{name}: {box}, holds when {command.following_error[k]:g}{unit} away; a state as old as "
        text += f"timeouts.max_age is up to {behind:.3g}{unit} behind"
        large = action.units[k] == "rad" and max(-command.low[k], command.high[k]) > 4 * np.pi
        yield Finding(NOTE, f"{text}; that is more than two turns: degrees?") if large else Finding(OK, text)


def _of_conversion(part: Source | Output, contract: Contract) -> Iterator[Finding]:
    """The limits of the box in the messages' units."""
    action, command = contract.interface.action, contract.command
    for channel, unit in zip(part.channels, part.conversion.units, strict=False):  # none where they are the same
        here = [f"{end[channel]:g}" for end in (command.low, command.high)]
        k = part.channels.index(channel)
        there = [f"{_outward(part, end)[k]:.4g}" for end in (command.low, command.high)]
        ends = f"{' to '.join(here)}{_unit(action.units[channel])} are {' to '.join(there)}{_unit(unit)}"
        yield Finding(OK, f"{action.names[channel]}: {ends} on {part.topic}")


def _outward(part: Source | Output, values: np.ndarray) -> np.ndarray:
    return part.conversion.outward(values[list(part.channels)]).round(9) + 0.0  # no -0


def _unit(unit: str) -> str:
    """A unit as a suffix of a number."""
    return "" if unit == "1" else f" {unit}"
