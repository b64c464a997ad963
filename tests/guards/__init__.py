"""What `./run check` looks for beside style and types: programs that end 0, 1 or 3 (not done)."""
