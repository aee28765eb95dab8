"""What the terminal says of a page: its address, and beyond this computer a QR code and how to know the certificate."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import segno

from vla_policy.web.security import state_folder, write_private


def welcome(url: str, fingerprint: str, token: str) -> Iterator[str]:
    """Lines for the terminal. The token stands behind #, which browsers do not send and servers do not log."""
    whole = f"{url}#token={token}" if token else url
    yield f"open {whole}"
    if fingerprint:
        yield qr(whole)
        yield f"no authority knows the page's certificate; its SHA-256 fingerprint is {fingerprint}"


def tell(url: str, fingerprint: str, token: str) -> str:
    """`welcome` for a terminal. Other outputs are kept as logs, so there it says which private file has the token."""
    text = "\n".join(welcome(url, fingerprint, token))
    if not token or sys.stdout.isatty():
        return text
    path = state_folder() / "live.txt"
    write_private(path, f"{text}\n".encode())
    return f"the page is at {url}; its address with the token is in {path}"


def qr(text: str) -> str:
    """A QR code for the terminal, two modules a character."""
    shown = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(shown, compact=True)
    return shown.getvalue().rstrip("\n")
