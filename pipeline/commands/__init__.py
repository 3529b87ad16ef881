"""What each command does: values in, console and exit code out; the only room that prints."""
