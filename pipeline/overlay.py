"""A frame beside everything predicted for it, as one picture; and a run's frames like that, as a video for browsers."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deltascene.pipeline.panel import TILE_HEIGHT, Change, draw, draw_ground, plan_panel
from deltascene.pipeline.units import compact, milliseconds, share
from deltascene.pipeline.webm import webm_writer
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import Frame, Image

VIDEO_TILE_HEIGHT = 144  # smaller than a picture's: what a video costs grows with its pixels
LONGEST_STILL_S = 60.0  # a hole in the source's clock is shown no longer than this
READ_FRAMES = 16  # frames of predictions read at once


class OverlayVideo(Protocol):
    """What `draw_overlay` asks of a video of a run."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def fps(self) -> float:
        """Processed frames per second."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the source's frames."""

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of every predicted task."""

    @property
    def arrays(self) -> Any:
        """Stored arrays: `index`, `pts_s`, `valid[task]`, `stored(task, slice)`, `change(place)`, `attributes`."""

    def ledger(self) -> pa.Table:
        """One row per frame and task."""


def compose(
    image: Image | None,
    values: Mapping[str, Array],
    kinds: Mapping[str, Kind],
    *,
    caption: str = "",
    cause: str = "",
    height: int = TILE_HEIGHT,
) -> Image:
    """A frame and its predictions as tiles of one picture; a legend of classes where a tile is left over.

    Args:
        image: RGB frame [H, W, 3]; None shows the predictions alone.
        values: natural values by task [h, w] or [h, w, components], of any size.
        kinds: kind of every task that gets a tile; one without values is shown as not predicted.
        caption: line on top; empty leaves it out.
        cause: why the frame isn't valid; greys it.
        height: of a tile in pixels; its width follows the frame's aspect.

    Returns:
        RGB picture [panel height, panel width, 3], both even.
    """
    shapes = [array.shape[:2] for array in (image, *values.values()) if array is not None]
    panel = plan_panel(shapes[0] if shapes else (3, 4), len(kinds), height, header=bool(caption))
    return draw(panel, draw_ground(panel, kinds), image, values, kinds, caption=caption, cause=cause)


def draw_overlay(
    path: Path, video: OverlayVideo, frames: Iterator[Frame], *, height: int = VIDEO_TILE_HEIGHT
) -> Generator[float, None, int]:
    """Writes a video of all processed frames and their predictions, VP8 in WebM, whole or not at all.

    Args:
        path: ends in `.webm`.
        video: a processed video of a run.
        frames: its processed frames in order; where they end early, predictions are shown without the frame.
        height: of a tile in pixels.

    Yields:
        Share of the frames that is drawn, 0 to 1.

    Returns:
        Number of frames written: a source of variable rate is resampled to a constant one by its times.

    Raises:
        OSError: the video can't be written.
        OutputError: the encoder failed.
        ValueError: `frames` aren't those of the run.
    """
    panel = plan_panel(video.frame_size, len(video.kinds) + keeps_change(video), height)
    ground = draw_ground(panel, video.kinds)
    notes = frame_notes(video.ledger())
    counts = shown_times(video.arrays.pts_s, video.fps)
    images = chain(frames, repeat(None))
    with webm_writer(path, panel.size, video.fps) as write:
        for place, (count, values) in enumerate(zip(counts, _values(video), strict=True)):
            index, frame = int(video.arrays.index[place]), next(images)
            if frame is not None and frame.index != index:
                raise ValueError(f"{video.id}: expected frame {index} of the source; found frame {frame.index}")
            if count:
                note = notes.get(index, FrameNote())
                image = None if frame is None else frame.image
                header = f"{video.id}   #{index}   {video.arrays.pts_s[place]:.2f} s   {note.text}"
                change = change_of(video, place, note.policy) if keeps_change(video) else None
                picture = draw(
                    panel, ground, image, values, video.kinds, caption=header, cause=note.cause, change=change
                )
                write(picture, count)
            yield (place + 1) / len(counts)
    return sum(counts)


def shown_times(pts_s: Sequence[float] | NDArray[np.float64], fps: float) -> list[int]:
    """How often each frame of any rate is shown in a video of a constant one; 0 where the next follows within a tick.

    Args:
        pts_s: ascending times of the frames in seconds [T].
        fps: rate of the video.
    """
    ticks = np.maximum.accumulate(np.rint((np.asarray(pts_s, np.float64) - pts_s[0]) * fps)).astype(np.int64)
    counts = np.diff(ticks, append=ticks[-1] + 1)
    return [int(count) for count in np.minimum(counts, max(1, round(LONGEST_STILL_S * fps)))]


def keeps_change(video: OverlayVideo) -> bool:
    """Whether a change map was kept and told what to compute."""
    return video.arrays.attributes.get("change_threshold") is not None


def change_of(video: OverlayVideo, place: int, policy: str) -> Change:
    """How much a processed frame changed, and what was done; without strengths where no change map was kept."""
    if not keeps_change(video):
        return Change(None, 0.0, policy)
    attributes = video.arrays.attributes
    top, left, height, width = attributes["content"]
    rows, columns = attributes["model_size"]
    content = (top / rows, left / columns, height / rows, width / columns)
    return Change(video.arrays.change(place), float(attributes["change_threshold"]), policy, content)


@dataclass(frozen=True, slots=True)
class FrameNote:
    """What is said of a frame beside its pictures.

    Attributes:
        text: policy and reason, rows, compute, time.
        policy: dense, rows, warped, held or skipped.
        cause: why it isn't valid; empty for a valid one.
    """

    text: str = ""
    policy: str = ""
    cause: str = ""


def frame_notes(ledger: pa.Table) -> dict[int, FrameNote]:
    """What is said of every frame, by its index.

    Args:
        ledger: one row per frame and task; a frame's first row is its base's.
    """
    sums = [(name, "sum") for name in ("macs_executed", "macs_dense", "seconds")]
    firsts = [(name, "first") for name in ("policy", "reason", "rows", "rows_computed", "valid", "cause")]
    rows = ledger.group_by("index", use_threads=False).aggregate([*firsts, *sums]).to_pylist()
    return {row["index"]: _note({name.rpartition("_")[0]: value for name, value in row.items()}) for row in rows}


def _note(frame: Mapping[str, Any]) -> FrameNote:
    executed, dense = frame["macs_executed"] or 0, frame["macs_dense"] or 0
    why = f" ({frame['reason']})" if frame["reason"] else ""
    rows = f"   {frame['rows_computed']}/{frame['rows']} rows" if frame["rows"] else ""
    saved = f", {share(1 - executed / dense)} saved" if dense and frame["valid"] else ""
    time = milliseconds(frame["seconds"] or 0)
    text = f"{frame['policy']}{why}{rows}   {compact(executed, 'MAC')}{saved}   {time}"
    return FrameNote(text, frame["policy"] or "", "" if frame["valid"] else frame["cause"] or "invalid")


def _values(video: OverlayVideo) -> Iterator[dict[str, Array]]:
    """Natural values of every processed frame by task; tasks that weren't predicted are left out."""
    arrays, frames = video.arrays, len(video.arrays.index)
    for start in range(0, frames, READ_FRAMES):
        stop = min(start + READ_FRAMES, frames)
        stored = {task: arrays.stored(task, slice(start, stop)) for task in video.kinds}
        for place in range(start, stop):
            predicted = [task for task in video.kinds if arrays.valid[task][place]]
            yield {task: video.kinds[task].decode(stored[task][place - start]) for task in predicted}
