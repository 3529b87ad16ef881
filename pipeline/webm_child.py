"""The encoder process: `python -m deltascene.pipeline.webm_child`, pictures on stdin, one answer on stdout.

PyAV can't encode in a process that imported decord, which makes its own older FFmpeg everybody's; and apart from the
pipeline encoding overlaps with drawing. A pipeline that dies closes stdin without an end, and this process ends, too.
"""

import os
import sys
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from deltascene.pipeline.wire import read_message, write_message

# Real-time mode takes a fifth of the time of libvpx's usual one for a picture that is 0.5 dB worse and two thirds of
# the bytes (docs/decisions.md). `b` is a limit that `crf` stays below.
_VP8 = {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "12M"}


def main() -> int:
    """Encode what comes on stdin."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        answer: dict[str, object] = {"frames": _encode(os.fdopen(0, "rb", buffering=0))}
    except OSError as error:
        answer = {"errno": error.errno, "error": error.strerror or str(error)}
    except Exception as error:  # a traceback written here would be seen by nobody
        answer = {"error": f"the encoder failed: {type(error).__name__}: {error}"}
    try:
        write_message(out, answer)
    except BrokenPipeError:
        return 1
    return 0


def _encode(messages: BinaryIO) -> int:
    """Writes the video that is asked for; number of its frames.

    Raises:
        EOFError: no end came.
        OSError: the file can't be written.
    """
    written, (about, _) = 0, _next(messages)
    height, width = about["size"]
    with av.open(about["path"], "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=Fraction(about["fps"]), options=_VP8)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1
        while "end" not in (said := _next(messages))[0]:
            picture = said[1].reshape(height, width, 3)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            for _ in range(said[0]["count"]):
                frame.pts, written = written, written + 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return written


def _next(messages: BinaryIO) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    message = read_message(messages)
    if message is None:
        raise EOFError("the pipeline ended")
    return message


if __name__ == "__main__":
    sys.exit(main())
