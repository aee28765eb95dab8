"""Where a server's token comes from, and who needs none."""

from pathlib import Path

import pytest

from vla_policy.interfaces import InputError
from vla_policy.serving.tokens import TOKEN, TOKEN_FILE, authorization, authorized, is_loopback, require_token, token

SECRET = "0123456789abcdef"


def test_a_token_is_in_the_environment_or_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.delenv(TOKEN_FILE, raising=False)
    assert token() is None
    monkeypatch.setenv(TOKEN, SECRET)
    assert token() == SECRET
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv(TOKEN_FILE, str(file))
    with pytest.raises(InputError, match="expected one of VLA_SERVE_TOKEN and VLA_SERVE_TOKEN_FILE, found both"):
        token()
    monkeypatch.delenv(TOKEN)
    assert token() == SECRET
    for wrong in ("", "short", "with blanks in between it", "é" * 20):
        file.write_text(wrong)
        with pytest.raises(InputError, match=f"{file}: expected a token of 16 or more printable ASCII characters"):
            token()


def test_only_the_loopback_address_needs_no_token() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    for host in ("0.0.0.0", "::", "", "192.168.1.7", "gpu"):
        with pytest.raises(InputError, match="host: expected a loopback address where there is no token"):
            require_token(None, host)
        require_token(SECRET, host)


@pytest.mark.parametrize("given", ["", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}0", "Bearer é", "Bearer \udcff"])
def test_another_authorization_is_not_the_token(given: str) -> None:
    assert not authorized(given, SECRET)
    assert authorized(authorization(SECRET), SECRET)
