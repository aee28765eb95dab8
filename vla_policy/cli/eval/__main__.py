from vla_policy.cli.eval import main

main()
