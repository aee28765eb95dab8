"""vla-web data: the page of a dataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import DATASET, parse_command


def main(arguments: Sequence[str]) -> None:
    """The page of a dataset: its episodes with pictures, plots and warnings; mark them, give them other sentences,
    delete them, split them off, merge datasets. Nothing changes before it is saved. Ctrl-C ends it.
    """
    (root,), config = parse_command("vla-web data", main.__doc__, "web_data", arguments, DATASET=DATASET)

    from vla_policy.data import editing
    from vla_policy.web.data import DataPage
    from vla_policy.web.security import new_token
    from vla_policy.web.server import Server
    from vla_policy.web.welcome import welcome

    token = new_token()
    page = DataPage(Path(root), token, editing, print_line)
    with Server(page.app, config.host, config.port) as server:
        for line in welcome(server.url, server.fingerprint, token):
            print(line, flush=True)
        try:
            while True:
                server.require_alive()
                time.sleep(0.2)
        finally:
            page.close()
