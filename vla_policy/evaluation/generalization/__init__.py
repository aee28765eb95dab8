"""What a checkpoint's training says about new episodes: losses, flatness, compressed size and bounds."""
