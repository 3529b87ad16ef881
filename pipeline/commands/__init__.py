"""The commands: each takes values, makes a result with the other rooms, prints it, and returns an exit code."""
