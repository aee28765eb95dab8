"""Editing of datasets: episodes, sentences, features, codecs; each edit in its place or as a new dataset.

An edit is a `Plan`: which episodes the new dataset has, and what changes in them. It is built in a hidden folder,
compared with the plan row by row and frame by frame, and renamed into place.
"""

from vla_policy.data.editing.apply import Edited, open_dataset
from vla_policy.data.editing.edits import (
    convert,
    delete,
    drop,
    merge,
    recompute_stats,
    reencode,
    rename,
    retask,
    revise,
    split,
)
from vla_policy.data.editing.selection import divided, parse_episodes, parse_parts

__all__ = [
    "Edited",
    "convert",
    "delete",
    "divided",
    "drop",
    "merge",
    "open_dataset",
    "parse_episodes",
    "parse_parts",
    "recompute_stats",
    "reencode",
    "rename",
    "retask",
    "revise",
    "split",
]
