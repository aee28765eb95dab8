"""Tests that compile a policy."""

import pytest

from vla_policy.interfaces import InputError
from vla_policy.models.prepared import require_compiler


def lacking() -> str:
    """What is not there to compile with; "" if all is."""
    try:
        require_compiler()
    except InputError as error:
        return str(error)
    return ""


compiling = pytest.mark.skipif(bool(lacking()), reason=lacking())
