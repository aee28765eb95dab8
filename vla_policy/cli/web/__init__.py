"""vla-web: pages in the browser, of a running graph and of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "live": Subcommand("[key=value ...]", "what a running robot or simulation does; stop it, lead it, record episodes"),
    "data": Subcommand("DATASET [key=value ...]", "the episodes of a dataset: look through them, mark and repair"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    dispatch(__name__, "vla-web", "Pages in the browser, served from this computer.", SUBCOMMANDS, arguments)
