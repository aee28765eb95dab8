"""`python -m vla_policy.cli.lab`: the command vla-lab."""

from vla_policy.cli.lab import main

if __name__ == "__main__":
    main()
