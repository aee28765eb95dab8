"""`python -m vla_policy.cli.eval`: the command vla-eval."""

from vla_policy.cli.eval import main

if __name__ == "__main__":
    main()
