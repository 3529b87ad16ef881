"""Command line: `python -m deltascene.pipeline.training.rooms make|clip ...`."""

import argparse
import logging
import sys
from pathlib import Path

from deltascene.pipeline.training.rooms.errors import RoomsError
from deltascene.pipeline.training.rooms.write import SetConfig, make_set


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        options.run(options)
    except (RoomsError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deltascene.pipeline.training.rooms", description=__doc__)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="write a data set of furnished rooms; rooms already there are skipped")
    make.set_defaults(run=_make)
    make.add_argument("--rooms", type=rooms_of, default="train:350,val:30,test:40", help="rooms of each split")
    make.add_argument("--views", type=int, default=6, help="views of each room")
    make.add_argument("--size", type=size_of, default="224x308", help="HEIGHTxWIDTH of picture and truth")
    make.add_argument("--workers", type=int, default=2, help="processes")
    for command in (make,):
        command.add_argument("--meshes", type=Path, required=True, help="folder with the .sh3f furniture libraries")
        command.add_argument("--cache", type=Path, help="folder for parsed meshes (default: beside the output)")
        command.add_argument("--out", type=Path, required=True, help="where to write")
    return parser


def _make(options: argparse.Namespace) -> None:
    height, width = options.size
    config = SetConfig(
        meshes_dir=options.meshes,
        cache_dir=options.cache or options.out.with_name(f"{options.out.name}-meshes"),
        out_dir=options.out,
        rooms=options.rooms,
        views=options.views,
        height=height,
        width=width,
    )
    make_set(config, options.workers)


def rooms_of(text: str) -> dict[str, int]:
    """Reads `train:350,val:30` as numbers of rooms by split."""
    pairs = [part.partition(":") for part in text.split(",")]
    if not all(name and count.isdigit() for name, _, count in pairs):
        raise argparse.ArgumentTypeError(f"expected SPLIT:COUNT,..., found {text!r}")
    return {name: int(count) for name, _, count in pairs}


def size_of(text: str) -> tuple[int, int]:
    """Reads `224x308` as height and width."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 1 and int(width) > 1):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, found {text!r}")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
