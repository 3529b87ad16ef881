"""Converts the records of a segment to a few flat arrays and back; all stores use this form.

Per frame, one entry: `frames` [T, columns] int64, `pts_s` [T] float64, `change` [T, h*w] uint8, and one more than
frames in `offsets` [T+1] int64, which give the place of each frame's rows in `index` [ΣR] int32 and `rows_<block>`
[ΣR, D]. Per warped frame: `flow` [F, 2, ceil(H/4), ceil(W/4)] int16, at the place that `frames` names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltascene.cache.errors import NotArchived
from deltascene.cache.segment import Array, FrameRecord, SegmentInfo, check_record

TABLE = ("index", "policy", "reason", "cause", "valid", "flow")  # columns of `frames`
BOOKS = ("policy", "reason", "cause")  # columns that hold codes; the book of the same name lists their words

# A reader holds at most the rows of so many dense frames at a time, and at most so many frames.
GROUP_DENSE, GROUP_FRAMES = 16, 64

Books = Mapping[str, Sequence[str]]
ReadSlice = Callable[[str, int, int], Array]


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a segment.

    Attributes:
        dtype: type of its values.
        shape: shape of one entry.
        chunk: number of entries of a chunk.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: int


def columns_of(info: SegmentInfo) -> dict[str, Column]:
    """Arrays of a segment by name; those of the archive points come first."""
    rows = {row_name(block): Column(info.stored, (info.width,), info.tokens) for block in info.blocks}
    return rows | {
        "index": Column(np.dtype(np.int32), (), 64 * info.tokens),
        "offsets": Column(np.dtype(np.int64), (), 4096),
        "frames": Column(np.dtype(np.int64), (len(TABLE),), 4096),
        "pts_s": Column(np.dtype(np.float64), (), 4096),
        "change": Column(np.dtype(np.uint8), (info.patches,), 64),
        "flow": Column(np.dtype(np.int16), info.flow_shape, 8),
    }


def row_name(block: int) -> str:
    """Name of the array that holds an archive point."""
    return f"rows_{block}"


class Packer:
    """Turns records into entries of the arrays, in order.

    Attributes:
        info: what the frames share.
        frames: number of frames packed so far.
        next_index: number in the source after the last packed frame.
    """

    def __init__(self, info: SegmentInfo) -> None:
        self.info, self.frames, self.next_index = info, 0, 0
        self._rows = self._flows = 0
        self._books: dict[str, dict[str, int]] = {name: {} for name in BOOKS}

    def pack(self, record: FrameRecord) -> dict[str, Array]:
        """Entries of a frame by array name, to be appended; they share memory with the record.

        Raises:
            WrongRecord: the record doesn't have the segment's form.
        """
        check_record(record, self.info)
        codes = [self._books[name].setdefault(getattr(record, name), len(self._books[name])) for name in BOOKS]
        place = -1 if record.flow is None else self._flows
        self._rows += len(record.rows)
        self._flows += record.flow is not None
        self.frames, self.next_index = self.frames + 1, record.index + 1
        entries: dict[str, Array] = {row_name(block): record.activations[block] for block in self.info.blocks}
        entries |= {
            "index": record.rows,
            "offsets": np.array([0, self._rows][self.frames > 1 :], np.int64),
            "frames": np.array([[record.index, *codes, record.valid, place]], np.int64),
            "pts_s": np.array([record.pts_s], np.float64),
            "change": record.change[None],
        }
        return entries if record.flow is None else entries | {"flow": record.flow[None]}

    def books(self) -> dict[str, list[str]]:
        """Words for the codes in `frames`: the word at place n of a book has code n."""
        return {name: list(book) for name, book in self._books.items()}


def unpack(
    info: SegmentInfo, books: Books, frames: int, blocks: Sequence[int], read: ReadSlice
) -> Iterator[FrameRecord]:
    """Reads the records of a segment in groups, so that memory stays bounded.

    Args:
        info: what the frames share.
        books: words for the codes, as returned by `Packer.books`.
        frames: number of frames.
        blocks: archive points to read.
        read: returns the entries of the named array from one place up to another.
    """
    offsets, table, pts_s = read("offsets", 0, frames + 1), read("frames", 0, frames), read("pts_s", 0, frames)
    for first, end in _groups(offsets, GROUP_DENSE * info.tokens):
        low = int(offsets[first])
        rows = {block: read(row_name(block), low, int(offsets[end])) for block in blocks}
        index, change = read("index", low, int(offsets[end])), read("change", first, end)
        places = table[first:end, TABLE.index("flow")]
        flows = read("flow", int(places[places >= 0].min()), int(places.max()) + 1) if places.max() >= 0 else None
        for place in range(first, end):
            entry = dict(zip(TABLE, table[place].tolist(), strict=True))
            span = slice(int(offsets[place]) - low, int(offsets[place + 1]) - low)
            yield FrameRecord(
                index=entry["index"],
                pts_s=float(pts_s[place]),
                valid=bool(entry["valid"]),
                rows=index[span],
                activations={block: values[span] for block, values in rows.items()},
                change=change[place - first],
                flow=None if flows is None or entry["flow"] < 0 else flows[entry["flow"] - places[places >= 0].min()],
                **{name: books[name][entry[name]] for name in BOOKS},
            )


def chosen_blocks(info: SegmentInfo, blocks: Sequence[int] | None) -> tuple[int, ...]:
    """The requested archive points; all of them if `blocks` is None.

    Raises:
        NotArchived: one of them isn't archived.
    """
    wanted = info.blocks if blocks is None else tuple(blocks)
    for block in wanted:
        if block not in info.blocks:
            raise NotArchived(
                f"archive point {block}: expected one of {', '.join(map(str, info.blocks))};"
                " archive it with the run, or start from one of these"
            )
    return wanted


def info_record(info: SegmentInfo) -> dict[str, Any]:
    """A segment's info as plain values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(info).items()}


def read_info(record: Mapping[str, Any]) -> SegmentInfo:
    """The inverse of `info_record`."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return SegmentInfo(**fields)


def _groups(offsets: NDArray[np.int64], most_rows: int) -> Iterator[tuple[int, int]]:
    """Groups of frames to read at once, each from its first frame up to an end; at least one frame each."""
    first, frames = 0, len(offsets) - 1
    while first < frames:
        fitting = int(np.searchsorted(offsets, offsets[first] + most_rows, side="right")) - 1
        end = min(max(fitting, first + 1), first + GROUP_FRAMES, frames)
        yield first, end
        first = end
