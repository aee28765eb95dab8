from vla_policy.cli.bench import main

main()
