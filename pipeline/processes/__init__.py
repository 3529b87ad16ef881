"""Child processes: how they are started, spoken to, and told apart from lost ones."""
