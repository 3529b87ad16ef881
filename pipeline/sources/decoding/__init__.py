"""What runs in the decoder's process; started by name, imported by nobody."""
