"""`python -m vla_policy.cli.bench`: the command vla-bench."""

from vla_policy.cli.bench import main

if __name__ == "__main__":
    main()
