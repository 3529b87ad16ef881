"""Files of kinds that video tools get wrong: as many frames as ffprobe finds, at its times, upright, in its colours.

`tests/data/odd_videos/truth.json` is what ffmpeg 5.1 makes of them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deltascene.pipeline.sources.decoding.by_av import av_pictures
from deltascene.pipeline.sources.decoding.probe import examine
from deltascene.pipeline.sources.reader import probe, read_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.stages.types import Image

FOLDER = Path(__file__).parents[2] / "data" / "odd_videos"
TRUTH: dict[str, dict[str, Any]] = json.loads((FOLDER / "truth.json").read_text(encoding="utf-8"))
HALF_A_TICK_S = 1 / 2_000  # of Matroska, the coarsest clock here


def spec_of(name: str) -> SourceSpec:
    return SourceSpec(name, "video", (FOLDER / name,))


def quarter_means(image: Image) -> NDArray[np.float64]:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    rows = (image[:height], image[height:])
    return np.array([[part.mean((0, 1)) for part in (row[:, :width], row[:, width:])] for row in rows])


def continuous(seconds: list[float]) -> NDArray[np.float64]:
    """Times of joined recordings, each beginning a frame after the one before it."""
    times, step = np.array(seconds), seconds[1] - seconds[0]
    for at in np.flatnonzero(np.diff(times) < 0) + 1:
        times[at:] += times[at - 1] + step - times[at]
    return times


@pytest.mark.parametrize("name", TRUTH)
def test_an_odd_file_is_read_as_ffmpeg_reads_it(name: str) -> None:
    truth, reader = TRUTH[name], read_frames(spec_of(name))
    frames = list(reader)
    assert [(frame.index, frame.cause) for frame in frames] == [(index, "") for index in range(truth["frames"])]
    assert (reader.info.width, reader.info.height) == (truth["width"], truth["height"])
    times = [frame.pts_s for frame in frames]
    assert np.abs(times - continuous(truth["seconds_from_first"])).max() <= HALF_A_TICK_S
    assert reader.cause == ""
    for index, means in truth["quarter_means"].items():
        image = frames[int(index)].image
        assert image is not None
        assert np.abs(quarter_means(image) - means).max() <= 4


@pytest.mark.parametrize("name", TRUTH)
def test_parts_of_an_odd_file_are_what_one_pass_gives(name: str) -> None:
    def keys(wanted: range, threads: int = 1) -> list[tuple[int, str, bytes]]:
        pictures = av_pictures(FOLDER / name, info, wanted, threads=threads)
        return [(index, cause, b"" if image is None else image.tobytes()) for index, image, cause in pictures]

    info = examine(FOLDER / name, lambda: None)
    whole = keys(range(info.frames))
    assert all(image for _, _, image in whole)
    assert [part for start in range(info.frames) for part in keys(range(start, start + 1))] == whole
    assert keys(range(info.frames // 3, info.frames, 4)) == whole[info.frames // 3 :: 4]
    for threads in (2, 4):
        assert keys(range(info.frames), threads) == whole


def test_joined_recordings_get_one_clock_and_a_note() -> None:
    info = probe(spec_of("cat_overlap.ts"))
    assert info.notes == ("another recording begins at 1.20 s: its clock jumps by -0.94 s",)
