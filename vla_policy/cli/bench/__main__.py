from vla_policy.cli.bench.main import main

if __name__ == "__main__":
    main()
