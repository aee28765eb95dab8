"""`python -m vla_policy.cli.eval`: the command vla-eval."""

from vla_policy.cli.eval import main

main()
