"""What is wanted of an imagined future, and the planner that finds it around a policy: for simulators and robots."""
