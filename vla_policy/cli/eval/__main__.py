from vla_policy.cli.eval.main import main

if __name__ == "__main__":
    main()
