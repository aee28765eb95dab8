"""Rollouts, statistics, reports: what a policy is worth, and how sure that is."""
