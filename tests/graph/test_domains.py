"""Tests that may not hear each other."""

from __future__ import annotations

from helpers.ros import own_domain


def test_the_domains_of_a_process_are_different_and_small() -> None:
    domains = []
    for another in range(4):
        with own_domain(another) as environment:
            domains.append(int(environment["ROS_DOMAIN_ID"]))
    assert len(set(domains)) == 4
    assert 1 <= min(domains) <= max(domains) <= 100
