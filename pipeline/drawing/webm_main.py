"""The encoder process, which webm.py starts by `python -m`: messages on stdin, one answer on stdout.

PyAV can't encode in a process that imported decord, whose own older FFmpeg both use then; and in a process of its own,
encoding overlaps with drawing. If the pipeline dies, stdin closes without an end message, and this process ends.
"""

import os
import signal
import sys
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from deltascene.pipeline.processes.wire import read_message, write_message

# Real-time mode takes a fifth of the time of libvpx's usual one for a picture that is 0.5 dB worse and two thirds of
# the bytes (docs/decisions.md). `b` is a limit that `crf` stays below.
_VP8 = {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "12M"}
_MS = Fraction(1, 1000)  # WebM's own clock

Message = tuple[dict[str, Any], NDArray[np.uint8]]


def main() -> int:
    """Makes the video that the messages on stdin describe."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipeline handles it and finishes its work
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    messages = _messages(os.fdopen(0, "rb", buffering=0))
    answer: dict[str, object] = {}
    try:
        about, _ = next(messages)
        make = _join if about["size"] is None else _encode
        make(about, messages)
    except MemoryError:
        answer = {"memory": True}
    except OSError as error:
        answer = {"errno": error.errno, "error": error.strerror or str(error)}
    except Exception as error:  # a traceback here would be lost
        answer = {"error": f"the encoder failed: {type(error).__name__}: {error}"}
    try:
        write_message(out, answer)
    except BrokenPipeError:
        return 1
    return 0


def _encode(about: dict[str, Any], messages: Iterator[Message]) -> None:
    """Encodes a video from pictures.

    Raises:
        EOFError: there was no end message.
        OSError: the file can't be written.
    """
    (height, width), fps, times_ms = about["size"], Fraction(about["fps"]), list[int]()
    with av.open(about["path"], "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=fps, options=_VP8)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 1

        def write(frame: av.VideoFrame | None) -> None:
            for packet in stream.encode(frame):
                _mux(container, packet, times_ms.pop(0), fps)

        for place, (head, block) in enumerate(messages):
            picture = av.VideoFrame.from_ndarray(block.reshape(height, width, 3), format="rgb24")
            frame = picture.reformat(format="yuv420p")
            frame.pts = place  # the encoder expects a constant rate
            times_ms.append(head["at_ms"])
            write(frame)
        write(None)


def _join(about: dict[str, Any], messages: Iterator[Message]) -> None:
    """Joins a video from the packets of others.

    Raises:
        EOFError: there was no end message.
        OSError: the file can't be written.
        ValueError: a piece has another number of packets.
    """
    fps, stream = Fraction(about["fps"]), None
    with av.open(about["path"], "w", format="webm") as container:
        for head, block in messages:
            with av.open(BytesIO(block.data), "r") as piece:
                if stream is None:
                    stream = container.add_stream_from_template(piece.streams.video[0])
                packets = (packet for packet in piece.demux(video=0) if packet.size)
                for packet, at_ms in zip(packets, head["at_ms"], strict=True):
                    packet.stream = stream
                    _mux(container, packet, at_ms, fps)


def _mux(container: OutputContainer, packet: "av.Packet[Any]", at_ms: int, fps: Fraction) -> None:
    """Writes a packet that is shown from a time on; the last one lasts one frame at the video's rate."""
    packet.time_base, packet.duration = _MS, max(1, round(1000 / fps))
    packet.pts = packet.dts = at_ms
    container.mux(packet)


def _messages(file: BinaryIO) -> Iterator[Message]:
    """Messages up to the end message.

    Raises:
        EOFError: there was none.
    """
    while (message := read_message(file)) is not None:
        if "end" in message[0]:
            return
        yield message
    raise EOFError("the pipeline ended")


if __name__ == "__main__":
    sys.exit(main())
