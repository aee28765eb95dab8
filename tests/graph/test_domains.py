"""Graphs of the tests that must not receive each other's messages."""

from __future__ import annotations

import itertools

import pytest
from helpers.ros import own_domain


def test_the_domains_of_all_workers_are_different_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    domains = []
    for worker, another in itertools.product(range(4), range(4)):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
        with own_domain(another) as environment:
            domains.append(int(environment["ROS_DOMAIN_ID"]))
    assert len(set(domains)) == 16
    assert 1 <= min(domains) <= max(domains) <= 100
