"""Crash-safe writing of datasets: new episodes, and merging of small files."""
