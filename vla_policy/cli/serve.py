"""vla-serve: a policy on this computer for robots on others."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from vla_policy.cli.common import print_line, user_errors
from vla_policy.cli.help import CHECKPOINT, parse_command
from vla_policy.evaluation.options import ComputeOptions
from vla_policy.interfaces import InputError

PORT = 8765
WARMUP = 3  # chunks


@dataclass
class ServeConfig(ComputeOptions):
    """A policy's server."""

    compile: bool = False  # the policy when it starts, for faster chunks; needs a C++ compiler
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0: all of this computer's, which takes a token
    port: int = PORT  # 0: one that is free
    certificate: str | None = None  # PEM file with the certificate chain, for wss://; null: ws://, readable on the way
    key: str | None = None  # PEM file with its private key; null: in `certificate` too

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise InputError(f"port: expected 0 to 65535, found {self.port}")
        if self.key is not None and self.certificate is None:
            raise InputError(f"certificate: expected that of the key {self.key}, found none")

    @property
    def context(self) -> ssl.SSLContext | None:
        """That of the certificate."""
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise InputError(f"certificate: expected one in PEM with its key, found {error}") from None
        return context


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Compute a policy's action chunks for robots and evaluations on other computers, until Ctrl-C."""
    (checkpoint,), config = parse_command("vla-serve", main.__doc__, "serve", arguments, CHECKPOINT=CHECKPOINT)

    from vla_policy.serving.server import PolicyServer
    from vla_policy.serving.tokens import is_loopback, require_token, token

    secret, context = token(), config.context
    require_token(secret, config.host)  # report mistakes before the policy is loaded

    from vla_policy.evaluation.success.latency import chunk_latency, random_histories
    from vla_policy.models.loading import load_policy
    from vla_policy.serving.checkpoint import describe

    policy = load_policy(checkpoint, config.device, config.threads, compile=config.compile)
    served = describe(policy, checkpoint)
    chunk_latency(policy, random_histories(policy, 1), 1, WARMUP)
    if context is None and not is_loopback(config.host):
        print_line("warning: token, pictures and actions can be read on their way: give certificate= or use a tunnel")
    server = PolicyServer(policy, served, policy.unreadable, secret, print_line)
    server.run(
        config.host,
        config.port,
        context,
        lambda address: print_line(f"{served.name} ({served.digest}) is served at {address}; Ctrl-C ends it"),
    )


if __name__ == "__main__":
    main()
