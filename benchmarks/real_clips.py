"""Hand-marked frames of real video against a model: `python benchmarks/real_clips.py --videos FOLDER`.

Each marked frame runs dense, as a stream of its own, and is asked: do the points on persons and on the ground get these
classes, and is the nearer point of each pair the nearer one? In nearly all pairs of near_far that is also the lower
one, in none of nearer_above. real_clips.json holds the marks, and which packages the clips are in; FOLDER holds the
clips themselves, as they are there (`.gz` too).

Intervals are 95 % by Wilson, as if the marks of a frame had nothing to do with each other; they have, so the last row
draws whole frames again (bootstrap).
"""

import argparse
import json
import sys
from pathlib import Path

from real_clips_marks import MARKS, judge_clips, read_marks
from real_clips_sheet import draw_sheet, encode
from real_clips_tables import plain, table

from deltascene.errors import DeltasceneError
from deltascene.pipeline.engine.engine import Engine


def main() -> None:
    """The command."""
    options = _parser().parse_args()
    clips = read_marks(MARKS)
    if options.videos is None:
        print("no --videos FOLDER, no numbers; it should hold")
        print(*(f"{clip.file}: {clip.origin}" for clip in clips), sep="\n")
        return
    try:
        engine = Engine.load(options.model)
        judged = judge_clips(engine, options.videos, clips)
    except DeltasceneError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"\nmodel {engine.model.bundle.name}\n\n{table(judged)}")
    if options.out is not None:
        options.out.write_text(json.dumps(plain(engine.model.bundle.name, judged), indent=1) + "\n")
    if options.sheet is not None and judged:
        options.sheet.write_bytes(encode(draw_sheet(judged, engine.model.bundle.kinds)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of the clips; without it, says where they are from")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="picture of all frames, answers and marks")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="all numbers, mark by mark")
    return parser


if __name__ == "__main__":
    main()
