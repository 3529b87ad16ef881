"""What this installation and machine can do."""
