"""Declarations of the command line."""
