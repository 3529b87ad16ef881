"""Child processes: starting them, exchanging messages with them, and describing those that were lost."""
