"""Messages survive the way there, and whatever else arrives is refused."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from helpers.damage import DAMAGES, damaged
from helpers.serving import INTERFACE, TOP, Sway, history, served

from vla_policy.interfaces import STATE, DataError, InputError
from vla_policy.serving import protocol
from vla_policy.serving.observations import to_histories, to_tensors
from vla_policy.serving.protocol import generator_state, pack, set_generator_state, unpack
from vla_policy.serving.served import Served


def question(**changes: object) -> bytes:
    tensors = to_tensors([history(1.0), history(2.0, "push it", 1)], INTERFACE, 1)
    state = generator_state(np.random.default_rng(3))
    return pack(protocol.PREDICT, tensors, **{"id": 7, "tasks": ["push", "push it"], "generator": state, **changes})


def test_observations_arrive_as_they_were_sent() -> None:
    sent = [history(1.0), history(2.0, "push it", 1)]
    message = unpack(question())
    assert (message.kind, message.get("id", int)) == (protocol.PREDICT, 7)
    for before, after in zip(
        sent, to_histories(message.tensors, message.get("tasks", list), INTERFACE, 2, 1), strict=True
    ):
        assert [seen.t for seen in after] == [seen.t for seen in before]
        assert {seen.task for seen in after} == {before[-1].task}
        for one, other in zip(before, after, strict=True):
            other.check(INTERFACE)
            np.testing.assert_array_equal(other.values[STATE], one.values[STATE])
        np.testing.assert_array_equal(after[-1].values[TOP], before[-1].values[TOP])
        np.testing.assert_array_equal(after[0].values[TOP], before[-1].values[TOP])  # nobody looks at an older one


def test_compressed_pictures_are_nearly_the_same_and_smaller() -> None:
    smooth = history()
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    smooth[-1].values[TOP][:] = ramp[:, None, None]
    raw, small = (to_tensors([smooth], INTERFACE, 1, jpeg) for jpeg in (0, 90))
    assert len(pack("", small)) < len(pack("", raw)) / 5
    ((_, newest),) = to_histories(small, ["push"], INTERFACE, 2, 1)
    assert np.abs(newest.values[TOP].astype(int) - smooth[-1].values[TOP]).max() < 8


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (STATE, np.zeros((2, 2, 3), np.float32), r"observation.state: expected float32 of \(2, 2, 2\), found float32"),
        (STATE, np.zeros((2, 2, 2)), "observation.state: expected float32 .* found float64"),
        (TOP, np.zeros((2, 1, 96, 96), np.uint8), r"images.top: expected uint8 of \(2, 1, 96, 96, 3\)"),
        (TOP, None, "images.top: .* found none"),
        ("t", np.zeros(2), "t: expected float64"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name: str, value: np.ndarray | None, expected: str) -> None:
    tensors = {**unpack(question()).tensors, name: value}
    with pytest.raises(DataError, match=expected):
        to_histories({key: kept for key, kept in tensors.items() if kept is not None}, ["a", "b"], INTERFACE, 2, 1)


@pytest.mark.parametrize(
    "sizes",
    [[[0], [0]], [[-5], [10**9]], [[2**62], [2**62]], [[3], [3]]],
    ids=["none", "negative", "overflow", "wrong"],
)
def test_a_jpeg_is_looked_at_before_it_is_unpacked(sizes: list[list[int]]) -> None:
    tensors = to_tensors([history(), history()], INTERFACE, 1, 90)
    with pytest.raises(DataError, match=r"images\.top"):
        to_histories({**tensors, f"{TOP}.sizes": np.array(sizes)}, ["a", "b"], INTERFACE, 2, 1)
    large = to_tensors([history(), history()], INTERFACE, 1, 90)
    other = INTERFACE.observations[TOP].__class__("image", (64, 64, 3))
    narrow = INTERFACE.__class__({STATE: INTERFACE.observations[STATE], TOP: other}, INTERFACE.action, 10)
    with pytest.raises(DataError, match="expected a JPEG of 64 x 64 pixels, found one of 96 x 96"):
        to_histories(large, ["a", "b"], narrow, 2, 1)


def test_a_generator_goes_on_elsewhere() -> None:
    here, there = np.random.default_rng(3), np.random.default_rng()
    here.random(5)
    set_generator_state(there, json.loads(json.dumps(generator_state(here))))
    np.testing.assert_array_equal(here.normal(size=4), there.normal(size=4))
    with pytest.raises(InputError, match=r"expected one of np.random.default_rng, found MT19937"):
        generator_state(np.random.Generator(np.random.MT19937(0)))
    for state in ({}, {"bit_generator": "PCG64"}, {"bit_generator": "PCG64", "state": {"state": "x", "inc": -1}}):
        with pytest.raises(DataError, match="expected the state of a PCG64"):
            set_generator_state(there, state)


def test_a_policy_is_described_whole() -> None:
    ranges = {STATE: (np.array([0.0, 0.1]), np.array([1.0, 1.1]))}
    known = served(Sway(), unchecked="a note", ranges=ranges, about={"objective": {"name": "flow"}})
    again = Served.from_dict(json.loads(json.dumps(known.to_dict())))
    assert again.differences(known) == []
    assert (again.about, again.unchecked, again.interface) == (known.about, "a note", INTERFACE)
    np.testing.assert_array_equal(again.ranges[STATE][1], [1.0, 1.1])
    for key, value in (("rows", 0), ("rows", True), ("name", 3), ("interface", []), ("ranges", {"a": [[1], [2, 3]]})):
        with pytest.raises(DataError):
            Served.from_dict({**known.to_dict(), key: value})
    assert served(Sway(), rows=3).differences(served(Sway())) == [f"rows 3 before, {15} now"]


def test_five_hundred_damaged_messages_are_refused_or_harmless() -> None:
    pick, whole = random.Random(0), question()
    jpeg = pack(protocol.PREDICT, to_tensors([history()], INTERFACE, 1, 90), id=1, tasks=["push"], generator={})
    refused = 0
    for _ in range(500):
        data = pick.choice([whole, jpeg])
        at = pick.randrange(min(len(data), 1200))  # headers, where damage tells
        try:
            message = unpack(damaged(data, pick.choice(DAMAGES), at, pick))
            message.get("id", int)
            set_generator_state(np.random.default_rng(), message.get("generator", dict))
            to_histories(message.tensors, message.get("tasks", list), INTERFACE, 2, 1)
        except DataError:
            refused += 1
    assert refused > 250
    for odd in (b"", b"\0" * 8, b"\xff" * 100, "text", pack("x")[:-1], b"\x02" + b"\0" * 7 + b"[]"):
        with pytest.raises(DataError):
            unpack(odd)
    with pytest.raises(DataError, match="header"):
        unpack((1 << 40).to_bytes(8, "little") + b"{")
    nested = json.dumps({"__metadata__": {"header": "[" * 100000}}).encode()
    with pytest.raises(DataError):
        unpack(len(nested).to_bytes(8, "little") + nested)
