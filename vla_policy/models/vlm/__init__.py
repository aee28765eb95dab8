"""The vision-language backbone: its families, its tiny model, its answers, the instructions that it knows."""
