"""Messages between the pipeline and its decoder processes."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.processes.wire import read_message, write_message
from deltascene.pipeline.sources.info import Decoder, FrameTable, SourceInfo


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are wanted.

    Attributes:
        start_s: frames from this time on, in seconds from the first frame.
        end_s: frames before this time.
        stride: step from one of these frames to the next that is taken, counted from the first.
        start_frame: number of the source's frame from which on they are taken.
        end_frame: number of the source's frame before which they are taken.
    """

    start_s: float | None = None
    end_s: float | None = None
    stride: int = 1
    start_frame: int | None = None
    end_frame: int | None = None

    def of(self, pts_s: NDArray[np.float64]) -> range:
        """Numbers of the selected frames of a source with these times [F].

        `start_frame` and `end_frame` don't shift the stride, so that segments joined give the same frames as one pass.
        """
        first = 0 if self.start_s is None else int(np.searchsorted(pts_s, self.start_s))
        last = len(pts_s) if self.end_s is None else int(np.searchsorted(pts_s, self.end_s))
        start = max(self.start_frame or 0, first)
        stop = last if self.end_frame is None else min(self.end_frame, last)
        return range(start + (first - start) % self.stride, max(start, stop), self.stride)


@dataclass(frozen=True)
class Request:
    """A request to a decoder process.

    Attributes:
        kind: `video` or `sequence`.
        paths: the file, or the images in order.
        decoder: name of the decoder, or `auto`.
        fps: frames per second of a sequence.
        selection: frames to decode; None only probes the source.
        info: what is known of the source; None if the process has to probe it first.
        threads: threads that decode a video.
    """

    kind: Literal["video", "sequence"]
    paths: tuple[Path, ...]
    decoder: Decoder
    fps: Fraction
    selection: Selection | None
    info: SourceInfo | None
    threads: int = 1


def write_request(file: BinaryIO, request: Request) -> None:
    """Sends a request to a decoder process."""
    head: dict[str, Any] = {
        "kind": request.kind,
        "paths": [str(path) for path in request.paths],
        "decoder": request.decoder,
        "fps": str(request.fps),
        "threads": request.threads,
        "selection": asdict(request.selection) if request.selection else None,
    }
    block = np.empty(0, dtype=np.uint8)
    if request.info is not None:
        head["info"], block = _packed(request.info)
    write_message(file, head, block)


def read_request(file: BinaryIO) -> Request | None:
    """Receives a request; None if there is none."""
    message = read_message(file)
    if message is None:
        return None
    head, block = message
    return Request(
        kind=head["kind"],
        paths=tuple(map(Path, head["paths"])),
        decoder=head["decoder"],
        fps=Fraction(head["fps"]),
        selection=Selection(**head["selection"]) if head["selection"] else None,
        info=parse_info(head["info"], block) if "info" in head else None,
        threads=head["threads"],
    )


def write_info(file: BinaryIO, info: SourceInfo) -> None:
    """Sends the result of probing a source."""
    head, block = _packed(info)
    write_message(file, {"info": head}, block)


def parse_info(head: dict[str, Any], block: NDArray[np.uint8]) -> SourceInfo:
    """Reads the result of probing a source from a message."""
    file = BytesIO(block.data)
    table = FrameTable(**{name: np.load(file) for name in head["arrays"]}, **head["table"])
    own = head["own"]
    return SourceInfo(**own | {"fps": Fraction(own["fps"]), "notes": tuple(own["notes"]), "table": table})


def _packed(info: SourceInfo) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Values for JSON, and the table's arrays one after another in NumPy's format."""
    own, table, file = dict(vars(info)), dict(vars(info.table)), BytesIO()
    del own["table"]
    arrays = [name for name, value in table.items() if isinstance(value, np.ndarray)]
    for name in arrays:
        np.save(file, table.pop(name))
    head = {"own": own | {"fps": str(info.fps)}, "table": table, "arrays": arrays}
    return head, np.frombuffer(file.getbuffer(), dtype=np.uint8)
