"""`python -m vla_policy.cli.dataset`: the command vla-dataset."""

from vla_policy.cli.dataset import main

main()
