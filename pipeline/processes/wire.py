"""Messages between this process and its children: JSON and one block of bytes, with their lengths in front.

A child may have read an untrusted file, so nothing in a message is ever executed (no pickle).
"""

import json
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_LENGTHS = struct.Struct("<IQ")


def write_message(file: BinaryIO, head: dict[str, Any], *blocks: NDArray[Any]) -> None:
    """Writes one message: a JSON object and the bytes of some arrays."""
    text = json.dumps(head).encode()
    file.write(_LENGTHS.pack(len(text), sum(block.nbytes for block in blocks)) + text)
    for block in blocks:
        rest = np.ascontiguousarray(block).data.cast("B")
        while rest:
            rest = rest[file.write(rest) :]
    file.flush()


def read_message(file: BinaryIO) -> tuple[dict[str, Any], NDArray[np.uint8]] | None:
    """Reads one message; None at the end of the stream, also if that comes inside a message."""
    lengths = _read(file, _LENGTHS.size)
    if lengths is None:
        return None
    head_bytes, block_bytes = _LENGTHS.unpack(lengths.tobytes())
    head, block = _read(file, head_bytes), _read(file, block_bytes)
    if head is None or block is None:
        return None
    return json.loads(head.tobytes()), block


def _read(file: BinaryIO, count: int) -> NDArray[np.uint8] | None:
    block = np.empty(count, dtype=np.uint8)
    rest = block.data
    while rest:
        got = file.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            return None
        rest = rest[got:]
    return block
