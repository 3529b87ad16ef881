"""Draws a frame and its predictions as one picture, and a run's frames as a video for browsers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deltascene.pipeline.drawing.panel import TILE_HEIGHT, Change, draw, draw_ground, plan_panel
from deltascene.pipeline.drawing.webm import WebmWriter
from deltascene.pipeline.units import compact, milliseconds, share
from deltascene.stages.input_plan import InputPlan
from deltascene.stages.kinds import Array, Kind
from deltascene.stages.types import Frame, Image
from deltascene.stages.zones import shaded

VIDEO_TILE_HEIGHT = 144  # smaller than a picture's, as a video's cost grows with its pixels
LONGEST_STILL_S = 60.0  # a gap in the source's clock is shown no longer than this
READ_FRAMES = 16  # frames of predictions read at once
_SUMMED = ("macs_executed", "macs_dense", "seconds")  # over a frame's ledger rows


class OverlayVideo(Protocol):
    """What `draw_overlay` needs of a video of a run."""

    @property
    def id(self) -> str:
        """Name of its folder."""

    @property
    def fps(self) -> float:
        """Processed frames per second."""

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
    """Draws a frame and its predictions as tiles of one picture, and a legend of classes where a tile is left over.

    Args:
        image: RGB frame [H, W, 3]; None shows the predictions alone.
        values: natural values by task [h, w] or [h, w, components], of any size.
        kinds: kind of every task that gets a tile; one without values is shown as not predicted.
        caption: line on top; empty for none.
        cause: why the frame isn't valid, in which case it is greyed; empty for a valid frame.
        height: of a tile in pixels; its width follows the frame's aspect ratio.

    Returns:
        RGB picture [panel height, panel width, 3], both even.
    """
    shapes = [array.shape[:2] for array in (image, *values.values()) if array is not None]
    panel = plan_panel(shapes[0] if shapes else (3, 4), len(kinds), height, header=bool(caption))
    return draw(panel, draw_ground(panel, kinds), image, values, kinds, caption=caption, cause=cause)


class OverlayPictures:
    """Draws the pictures of one video's overlay: the frame, every task, and the change map where one is kept.

    Attributes:
        size: height and width of a picture.
    """

    def __init__(
        self, id_: str, kinds: Mapping[str, Kind], attributes: Mapping[str, Any], height: int = VIDEO_TILE_HEIGHT
    ) -> None:
        """Draws what all pictures share.

        Args:
            id_: name of the video.
            kinds: kind of every task.
            attributes: those that are stored with the video's arrays.
            height: of a tile in pixels.
        """
        self._id, self._kinds, self._attributes = id_, kinds, attributes
        frame_height, frame_width = attributes["frame_size"]
        self._panel = plan_panel((frame_height, frame_width), len(kinds) + keeps_change(attributes), height)
        self._ground, self.size = draw_ground(self._panel, kinds), self._panel.size

    def draw(
        self,
        index: int,
        pts_s: float,
        image: Image | None,
        values: Mapping[str, Array],
        note: "FrameNote",
        strength: NDArray[np.uint8] | None,
    ) -> Image:
        """Draws one picture.

        Args:
            index: of the frame in its source.
            pts_s: its time in seconds.
            image: RGB frame [H, W, 3], or None.
            values: natural values by task.
            note: text beside the pictures.
            strength: how much each patch changed [h, w], in steps of 255.
        """
        if image is not None and "ignored_patches" in self._attributes and strength is not None:
            sizes = (tuple(self._attributes[name]) for name in ("frame_size", "model_size", "content"))
            patch = self._attributes["model_size"][0] // strength.shape[0]
            image = shaded(image, self._attributes["ignored_patches"], InputPlan(*sizes), patch)
        header = f"{self._id}   #{index}   {pts_s:.2f} s   {note.text}"
        change = _change(self._attributes, strength, note.policy) if keeps_change(self._attributes) else None
        shared = {"caption": header, "cause": note.cause}
        return draw(self._panel, self._ground, image, values, self._kinds, **shared, change=change)


def draw_overlay(
    path: Path, video: OverlayVideo, frames: Iterator[Frame], *, height: int = VIDEO_TILE_HEIGHT
) -> Iterator[float]:
    """Writes a video of all processed frames and their predictions, VP8 in WebM, whole or not at all.

    Args:
        path: a new file, ends in `.webm`.
        video: a processed video of a run.
        frames: its processed frames in order; where they end early, predictions are shown without the frame.
        height: of a tile in pixels.

    Yields:
        Share of the frames that is drawn, 0 to 1.

    Raises:
        OSError: the video can't be written.
        EncoderFailed: it can't be encoded.
        WorkerLost: the encoder was killed.
        ValueError: `frames` aren't those of the run.
    """
    arrays, notes = video.arrays, frame_notes(video.ledger())
    pictures = OverlayPictures(video.id, video.kinds, arrays.attributes, height)
    times_ms, images = shown_at_ms(arrays.pts_s), chain(frames, repeat(None))
    with closing(WebmWriter(path, pictures.size, video.fps)) as writer:
        for place, (at_ms, values) in enumerate(zip(times_ms, _values(video), strict=True)):
            index, frame = int(arrays.index[place]), next(images)
            if frame is not None and frame.index != index:
                raise ValueError(f"{video.id}: expected frame {index} of the source; found frame {frame.index}")
            note, image = notes.get(index, FrameNote()), None if frame is None else frame.image
            strength = arrays.change(place) if keeps_change(arrays.attributes) else None
            picture = pictures.draw(index, arrays.pts_s[place], image, values, note, strength)
            writer.write(picture, at_ms)
            yield (place + 1) / len(times_ms)
        writer.finish()


def shown_at_ms(pts_s: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Times at which frames are shown, in whole milliseconds from 0 on: all different, and without gaps over a minute.

    Args:
        pts_s: ascending times of the frames in seconds [T].
    """
    steps_s = np.minimum(np.diff(np.asarray(pts_s, np.float64)), LONGEST_STILL_S)
    at_ms = np.rint(1000 * np.concatenate([[0.0], np.cumsum(steps_s)])).astype(np.int64)
    places = np.arange(len(at_ms))
    return [int(each) for each in np.maximum.accumulate(at_ms - places) + places]


def keeps_change(attributes: Mapping[str, Any]) -> bool:
    """Whether the run computed only changed patches and kept the change map that it used."""
    return attributes.get("change_threshold") is not None


def change_of(video: OverlayVideo, place: int, policy: str) -> Change:
    """Change map and policy of a processed frame; without strengths where no change map was kept."""
    attributes = video.arrays.attributes
    return _change(attributes, video.arrays.change(place) if keeps_change(attributes) else None, policy)


def _change(attributes: Mapping[str, Any], strength: NDArray[np.uint8] | None, policy: str) -> Change:
    if not keeps_change(attributes):
        return Change(None, 0.0, policy)
    top, left, height, width = attributes["content"]
    rows, columns = attributes["model_size"]
    content = (top / rows, left / columns, height / rows, width / columns)
    return Change(strength, float(attributes["change_threshold"]), policy, content)


@dataclass(frozen=True, slots=True)
class FrameNote:
    """Text on a frame beside its pictures.

    Attributes:
        text: policy and reason, rows, compute, time.
        policy: dense, rows, warped, held or skipped.
        cause: why the frame isn't valid; empty for a valid one.
    """

    text: str = ""
    policy: str = ""
    cause: str = ""


def frame_notes(ledger: pa.Table) -> dict[int, FrameNote]:
    """Notes on all frames, by their index in the source.

    Args:
        ledger: one row per frame and task; a frame's first row is that of the base.
    """
    sums = [(name, "sum") for name in _SUMMED]
    firsts = [(name, "first") for name in ("policy", "reason", "rows", "rows_computed", "valid", "cause")]
    rows = ledger.group_by("index", use_threads=False).aggregate([*firsts, *sums]).to_pylist()
    return {row["index"]: _note({name.rpartition("_")[0]: value for name, value in row.items()}) for row in rows}


def note_of(rows: Sequence[Mapping[str, Any]]) -> FrameNote:
    """Note on a frame from its ledger rows, of which the first is that of the base."""
    return _note({**rows[0], **{name: sum(row[name] for row in rows) for name in _SUMMED}})


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
