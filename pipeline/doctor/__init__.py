"""Checks of this installation and machine."""
