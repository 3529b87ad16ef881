"""Declarations of the command line: names, options and help texts. Whatever is heavy is imported in a command."""
