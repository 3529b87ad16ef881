"""`python -m deltascene`: the same as the command."""

from deltascene.pipeline.cli.app import main

main()
