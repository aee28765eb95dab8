"""A draft in a process of its own: faults end the drafts, never the decoding."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Iterator

import psutil
import pytest
import torch
from helpers.toy_decoder import ToyDecoder, load_toy, open_late, open_misbehaving, open_toy, table

from vla_policy.interfaces import InputError
from vla_policy.speculation import DrafterConfig, DraftProcess, LocalDrafter, OpenDecoder, Task, decode

CONFIG, LIMIT = DrafterConfig(length=3, branches=6), 30
LONG = 120.0  # seconds, on a busy computer
TARGET = table(0)


def tokens(drafter, seed: int = 0, temperature: float | None = 1.0, prompt: str | None = None):
    if drafter is not None:
        drafter.begin(Task(prompt, LIMIT, temperature, 1000 + seed))
    return decode(ToyDecoder(TARGET), LIMIT, temperature, torch.Generator().manual_seed(seed), drafter)


@pytest.fixture(scope="module")
def process() -> Iterator[DraftProcess]:
    process = DraftProcess(load_toy(1), CONFIG, LONG)
    yield process
    process.close()


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_it_drafts_as_one_in_this_process(process: DraftProcess, temperature: float | None) -> None:
    local = LocalDrafter(open_toy(1), CONFIG)
    for seed in range(3):
        here, there = tokens(local, seed, temperature), tokens(process, seed, temperature)
        assert (there.tokens, there.passes, there.kept) == (here.tokens, here.passes, here.kept)
    assert process.alive


@pytest.mark.parametrize("how", ["kill", "stop", "raise"])
def test_a_draft_that_fails_in_the_middle_changes_no_token(how: str, caplog: pytest.LogCaptureFixture) -> None:
    drafter = DraftProcess(functools.partial(open_misbehaving, 0, how), CONFIG, LONG)
    greedy = tokens(None, temperature=None).tokens
    assert tokens(drafter, temperature=None).tokens == greedy  # all is well for another prompt
    drafter.patience = 2.0 if how == "stop" else LONG
    with caplog.at_level(logging.WARNING):
        broken = tokens(drafter, temperature=None, prompt=how)
    assert broken.tokens == greedy
    assert LIMIT / 4 < broken.passes <= (LIMIT if how == "stop" else LIMIT - 1)  # with drafts at first, then without
    assert not drafter.alive
    assert not psutil.pid_exists(drafter.pid or 0)
    reason = {"kill": "it died", "stop": "no answer for 2 s", "raise": "RuntimeError: out of memory"}[how]
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    again = tokens(drafter, temperature=None)
    assert (again.tokens, again.passes) == (greedy, LIMIT)


def test_a_draft_is_waited_for_while_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    drafter = DraftProcess(functools.partial(open_late, 0, 1.0), CONFIG, patience=0.1, start=LONG)
    drafter.begin(Task(None, LIMIT, None, 0))
    assert drafter.propose(0, 0) is not None
    drafter.patience = LONG
    assert tokens(drafter, temperature=None).passes < LIMIT
    drafter.close()
    assert not caplog.records

    drafter = DraftProcess(functools.partial(open_late, 0, LONG), CONFIG, patience=0.1, start=0.5)
    assert tokens(drafter, temperature=None).passes == LIMIT
    assert "no answer for 0.5 s" in caplog.text
    assert not drafter.alive


def test_a_draft_that_is_killed_between_sequences_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    drafter = DraftProcess(load_toy(1), CONFIG, LONG)
    os.kill(drafter.pid or 0, signal.SIGKILL)
    found = tokens(drafter)
    assert len(found.tokens) == found.passes == LIMIT
    assert found.tokens == tokens(None).tokens
    assert len(caplog.records) == 1


def refuse() -> OpenDecoder:
    raise InputError("draft outputs/small: expected a checkpoint, found none")


def test_what_loading_refuses_is_raised_here() -> None:
    with pytest.raises(InputError, match="draft outputs/small: expected a checkpoint, found none"):
        DraftProcess(refuse, CONFIG)


def test_it_ends_with_its_object() -> None:
    drafter = DraftProcess(load_toy(1), CONFIG, LONG)
    child = psutil.Process(drafter.pid)
    del drafter
    assert child.wait(LONG) is not None or not child.is_running()
