"""`python -m vla_policy.cli.web`: the command vla-web."""

from vla_policy.cli.web import main

if __name__ == "__main__":
    main()
