"""Compares a model with hand-marked frames of real videos: `python benchmarks/real_clips.py --videos FOLDER`.

Each marked frame is predicted densely, as a stream of its own. A hit is a point on a person or on the ground with that
class, or a pair of points whose nearer one is predicted nearer. In nearly all pairs of near_far the nearer point is
also the lower one, in none of nearer_above. real_clips.json has the marks and the packages of the clips; FOLDER has the
clips themselves, unpacked or as `.gz`.

Intervals are 95 % by Wilson, which treats the marks of a frame as independent; as they aren't, the last row has
bootstrap intervals that draw whole frames.
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
    """Prints the table; writes the sheet and the JSON file if asked to."""
    options = _parser().parse_args()
    clips = read_marks(MARKS)
    if options.videos is None:
        print("no --videos FOLDER, no numbers; it should hold")
        print(*(f"{clip.file}: {clip.origin}" for clip in clips), sep="\n")
        return
    try:
        engine = Engine.load(options.model, "exact")
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
    parser.add_argument("--videos", type=Path, help="folder of the clips; without it, prints where to get them")
    parser.add_argument("--model", default="rooms", help="packaged bundle or folder")
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="picture of all frames, predictions and marks")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="all numbers, mark by mark")
    return parser


if __name__ == "__main__":
    main()
