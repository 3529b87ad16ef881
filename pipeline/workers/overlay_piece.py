"""One segment's piece of its video's overlay: drawn while the segment is written, sealed with it, joined at the end.

So drawing is shared by all workers as computing is, and nothing is decoded or read a second time for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.places import Place
from deltascene.cache.sealed_zip import SealedZip
from deltascene.pipeline.drawing.overlay import OverlayPictures, OverlayVideo, note_of, shown_at_ms
from deltascene.pipeline.drawing.webm import WebmWriter, join_webm
from deltascene.pipeline.workers.jobs import VideoJob
from deltascene.pipeline.workers.outputs import FrameOutput
from deltascene.stages.types import Image


class OverlayPiece:
    """Draws a segment's frames one after the other and encodes them."""

    def __init__(self, folder: Path, job: VideoJob) -> None:
        """Starts the encoder.

        Args:
            folder: in which the segment's part is made.
            job: the video.
        """
        self._job, self._frames = job, 0
        self._pictures = OverlayPictures(job.id, job.kinds, job.attributes)
        self._writer = WebmWriter(folder / piece_name(self._pictures), self._pictures.size, job.attributes["fps"])

    def add(
        self,
        output: FrameOutput,
        image: Image | None,
        rows: Sequence[Mapping[str, Any]],
        change: NDArray[np.uint8],
    ) -> None:
        """Draws a frame.

        Args:
            output: the engine's output.
            image: RGB frame [H, W, 3]; None for one that isn't valid.
            rows: its ledger rows.
            change: how much each patch changed [h, w], in steps of 255.
        """
        kinds, record = self._job.kinds, output.record
        stored = {task: output.tasks[task].stored for task in kinds}
        values = {task: kinds[task].decode(value) for task, value in stored.items() if value is not None}
        picture = self._pictures.draw(record.index, record.pts_s, image, values, note_of(rows), change)
        self._writer.write(picture, self._frames)  # shown times are set when pieces are joined
        self._frames += 1

    def finish(self) -> None:
        """Waits until everything is encoded; must be the last call."""
        self._writer.finish()

    def close(self) -> None:
        """Gives up a piece that wasn't finished."""
        self._writer.close()


def piece_name(pictures: OverlayPictures) -> str:
    """Name of a piece in its segment's part; it has the pictures' size, as only pieces of one size can be joined."""
    height, width = pictures.size
    return f"overlay-{width}x{height}.webm"


def has_pieces(pictures: OverlayPictures, parts: Iterable[Place]) -> bool:
    """Whether every part of a video has a piece; a part that was made without an overlay has none."""
    name = piece_name(pictures)
    for part in parts:
        with SealedZip(part) as sealed:
            if name not in sealed.files:
                return False
    return True


def join_pieces(
    path: Path, pictures: OverlayPictures, parts: Mapping[int, Place], video: OverlayVideo
) -> Iterator[float]:
    """Joins a video's overlay from the pieces of its parts.

    Args:
        path: a new file, ends in `.webm`.
        pictures: that drew them.
        parts: sealed parts by the number of their first frame, in order.
        video: the video's joined arrays.

    Yields:
        Share of the frames that is joined, 0 to 1.

    Raises:
        BrokenSeal: a part's bytes aren't those that were sealed.
        OSError: the overlay can't be written.
        EncoderFailed: pieces can't be joined.
        WorkerLost: the process that joins them was killed.
    """
    name, times_ms = piece_name(pictures), shown_at_ms(video.arrays.pts_s)
    stops = [*parts, len(times_ms)][1:]

    def pieces() -> Iterator[tuple[bytes, Sequence[int]]]:
        for (start, part), stop in zip(parts.items(), stops, strict=True):
            with SealedZip(part) as sealed:
                yield sealed.read(name), times_ms[start:stop]

    for place, _ in enumerate(join_webm(path, pieces(), video.fps)):
        yield stops[place] / len(times_ms)
