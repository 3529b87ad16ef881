"""`python -m deltascene`: the same as the command."""

from deltascene.pipeline.cli import main

main()
