"""Speculative decoding of tokens, whichever model predicts them.

A small draft proposes tokens that the target checks in one pass (Leviathan et al. 2023, arXiv 2211.17192). In a process
of its own the draft also guesses how the check ends, and drafts ahead for each guess (SSD, arXiv 2603.03251). Both draw
from the target's own distribution.
"""

from vla_policy.speculation.acceptance import Draft
from vla_policy.speculation.decode import Decoded, decode
from vla_policy.speculation.decoder import Decoder, OpenDecoder
from vla_policy.speculation.drafter import Drafter, DrafterConfig, LocalDrafter, Proposal, Task
from vla_policy.speculation.process import DraftProcess

__all__ = [
    "Decoded",
    "Decoder",
    "Draft",
    "DraftProcess",
    "Drafter",
    "DrafterConfig",
    "LocalDrafter",
    "OpenDecoder",
    "Proposal",
    "Task",
    "decode",
]
