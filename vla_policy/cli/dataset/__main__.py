from vla_policy.cli.dataset import main

main()
