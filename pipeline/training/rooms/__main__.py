"""Command line: `python -m deltascene.pipeline.training.rooms make|clip|sheet ...`."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from deltascene.errors import ExitCode
from deltascene.pipeline.training.rooms.catalogue import load_catalogue
from deltascene.pipeline.training.rooms.clip_config import clip_of_kind
from deltascene.pipeline.training.rooms.errors import RoomsError
from deltascene.pipeline.training.rooms.meshes import MeshStore
from deltascene.pipeline.training.rooms.scene import Furniture
from deltascene.pipeline.training.rooms.sheet import write_sheet
from deltascene.pipeline.training.rooms.video import write_clip
from deltascene.pipeline.training.rooms.write import SetConfig, make_set


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        options.run(options)
    except (RoomsError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USAGE
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deltascene.pipeline.training.rooms", description=__doc__)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="write a data set of furnished rooms; rooms already there are skipped")
    make.set_defaults(run=_make)
    make.add_argument("--rooms", type=rooms_of, default="train:350,val:30,test:40", help="rooms of each split")
    make.add_argument("--views", type=int, default=6, help="views of each room")
    make.add_argument("--size", type=size_of, default="224x308", help="HEIGHTxWIDTH of picture and truth")
    make.add_argument("--workers", type=int, default=2, help="processes")
    clip = commands.add_parser("clip", help="write a clip and its truth beside it")
    clip.set_defaults(run=_clip)
    clip.add_argument("--seed", type=int, required=True, help="room seed")
    clip.add_argument("--kind", default="static", help="of content; an unknown one is told with all that there are")
    clip.add_argument("--frames", type=int, help="number of frames, before those that --step leaves out")
    clip.add_argument("--fps", type=float, default=15.0)
    clip.add_argument("--step", type=int, default=1, help="render only every so many frames")
    clip.add_argument("--size", type=size_of, default="480x640", help="HEIGHTxWIDTH of the frames")
    clip.add_argument("--noise", type=float, default=2.0, help="sensor noise in steps of 255")
    clip.add_argument("--crf", type=int, default=16, help="H.264 rate factor")
    sheet = commands.add_parser("sheet", help="write a contact sheet of a data set")
    sheet.set_defaults(run=_sheet)
    sheet.add_argument("--set", type=Path, required=True, help="folder that `make` wrote")
    sheet.add_argument("--split", default="test")
    sheet.add_argument("--columns", type=int, default=6)
    sheet.add_argument("--out", type=Path, required=True, help="where to write")
    for command in (make, clip):
        command.add_argument("--meshes", type=Path, required=True, help="folder with the .sh3f furniture libraries")
        command.add_argument("--cache", type=Path, help="folder for parsed meshes (default: beside the output)")
        command.add_argument("--out", type=Path, required=True, help="where to write")
    return parser


def _make(options: argparse.Namespace) -> None:
    height, width = options.size
    config = SetConfig(
        meshes_dir=options.meshes,
        cache_dir=_cache_dir(options),
        out_dir=options.out,
        rooms=options.rooms,
        views=options.views,
        height=height,
        width=width,
    )
    make_set(config, options.workers)


def _clip(options: argparse.Namespace) -> None:
    height, width = options.size
    base = clip_of_kind(options.kind, options.seed)
    config = replace(
        base,
        frames=options.frames or base.frames,
        fps=options.fps,
        step=options.step,
        height=height,
        width=width,
        noise_sigma=options.noise,
    )
    furniture = Furniture(load_catalogue(options.meshes), MeshStore(_cache_dir(options)))
    moved = write_clip(options.out, config, furniture, options.crf)
    logging.getLogger(__name__).info("%s: %.1f %% of pixels move", options.out, 100 * moved)


def _sheet(options: argparse.Namespace) -> None:
    write_sheet(options.set, options.out, options.split, options.columns)


def _cache_dir(options: argparse.Namespace) -> Path:
    folder: Path = options.cache or options.out.with_name(f"{options.out.stem}-meshes")
    return folder


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
