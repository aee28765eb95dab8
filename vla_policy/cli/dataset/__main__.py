"""`python -m vla_policy.cli.dataset`: the command vla-dataset."""

from vla_policy.cli.dataset import main

if __name__ == "__main__":
    main()
