"""The frames of a source that a config selects."""

from deltascene.pipeline.config import SourceConfig
from deltascene.pipeline.sources.messages import Selection
from deltascene.pipeline.sources.reader import Reader, SourceInfo, SourceSpec, read_frames


def selected_frames(chosen: SourceConfig, info: SourceInfo) -> range:
    """Numbers of the frames of a source that a config selects."""
    return Selection(chosen.start_s, chosen.end_s, chosen.stride).of(info.table.pts_s)


def open_source(
    chosen: SourceConfig, spec: SourceSpec, *, start_frame: int | None = None, info: SourceInfo | None = None
) -> Reader:
    """The frames of a source that a config selects.

    Args:
        chosen: times, stride, rate and decoder.
        spec: the source.
        start_frame: leave out frames before this number.
        info: what `probe` said, to save asking again.

    Raises:
        SourceError: it can't be read.
    """
    return read_frames(
        spec,
        start_s=chosen.start_s,
        end_s=chosen.end_s,
        stride=chosen.stride,
        start_frame=start_frame,
        fps=chosen.fps,
        decoder=chosen.decoder,
        info=info,
        timeout_s=chosen.timeout_s,
    )
