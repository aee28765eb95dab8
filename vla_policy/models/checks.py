"""Whether a policy's interface and statistics are what its configuration needs."""

from __future__ import annotations

from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, STATE, InputError, Interface
from vla_policy.models.frames import SEEN


def check_vectors(interface: Interface, normalizer: Normalizer, rows: int, object_frame: bool = False) -> None:
    """`InputError` unless every feature other than an image is a vector with normalisation statistics, with an object's
    frame also of what it is from there.
    """
    sizes = {}
    for key, feature in {**interface.observations, ACTION: interface.action}.items():
        if feature.dtype != "image":
            if len(feature.shape) != 1:
                raise InputError(f"{key}: expected the shape of a vector, found {list(feature.shape)}")
            sizes[key] = feature.shape[0]
    if object_frame:
        sizes |= {SEEN + key: sizes[key] for key in interface.observations if key in sizes}
    normalizer.require(sizes, rows)


def check_relative(interface: Interface) -> None:
    """`InputError` unless the state has the action's channels, which relative actions need."""
    if STATE not in interface.observations:
        raise InputError(f"policy.action_relative: expected {STATE!r} among observation_keys, found none")
    state, action = interface.observations[STATE], interface.action
    if state.shape != action.shape or state.names != action.names or state.units != action.units:
        raise InputError(
            f"policy.action_relative: expected {STATE} and action to have the same channels, found "
            f"{list(state.names)} {list(state.units)} and {list(action.names)} {list(action.units)}"
        )
