"""What there is to do for one input: its job, its segments, and which of them an earlier run finished."""

import logging
from contextlib import suppress
from dataclasses import replace

from deltascene.cache.places import absolute
from deltascene.pipeline.batch.archive_plan import segment_info
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.keys import archive_key, segment_key
from deltascene.pipeline.batch.resume import sealed_fingerprints, sealed_segments
from deltascene.pipeline.batch.video_progress import VideoProgress
from deltascene.pipeline.engine.step import grid_of
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.sources.errors import UnreadableSource
from deltascene.pipeline.sources.identity import Identity
from deltascene.pipeline.sources.info import Decoder, SourceInfo
from deltascene.pipeline.sources.reader import probe, selected_frames
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text
from deltascene.pipeline.workers.jobs import ArchiveJob, VideoJob, plan_segments

_log = logging.getLogger(__name__)
_EARLIER: tuple[Decoder, ...] = ("decord", "opencv")


def plan_video(run: BatchRun, spec: SourceSpec, now: Identity) -> VideoProgress:
    """Looks at an input and at what is sealed of it.

    Args:
        run: the run.
        spec: the input.
        now: identity of its content.

    Raises:
        SourceError: it can't be read, or the config selects none of its frames.
        StageError: its frames are smaller than one patch.
    """
    config, files = run.config, run.folder.video(spec.id)
    how = config.source
    info = _probe_as_begun(run, spec, now)
    wanted = selected_frames(how, info)
    if not wanted:
        raise UnreadableSource(
            f"{spec.path}: expected frames between --start and --end; it is {info.duration_s:.1f} s long"
        )
    for note in info.notes:
        _log.warning("%s: %s", path_text(spec.path), note)
    job = _plan_job(run, spec, info, len(wanted), now)
    segments = plan_segments(wanted, config.segment.frames)
    # Earlier versions put the full hash of the input into the key.
    keys = {job.key, segment_key(run.key, now.full, info.decoder)} if now.full else {job.key}
    seals = sealed_segments(files, keys, segments, now.full)
    full = now.full or next((seal.input_full for seal in seals.values() if seal.input_full), "")
    cause = "truncated" if info.truncated and wanted.stop >= info.frames else ""
    return VideoProgress(spec, job, Identity(now.quick, full), cause, segments, seals)


def _probe_as_begun(run: BatchRun, spec: SourceSpec, now: Identity) -> SourceInfo:
    """Looks at an input with the decoder that its finished segments were made with, if it still reads it rightly.

    Earlier versions chose decord or OpenCV where no decoder was asked for.

    Raises:
        SourceError: it can't be read.
    """

    def began_with(info: SourceInfo) -> bool:
        return segment_key(run.key, now.quick, info.decoder) in sealed

    how = run.config.source
    info = probe(spec, decoder=how.decoder, fps=how.fps, timeout_s=how.timeout_s)
    segments = plan_segments(selected_frames(how, info), run.config.segment.frames)
    sealed = sealed_fingerprints(run.folder.video(spec.id), segments)
    if how.decoder != "auto" or spec.kind != "video" or not sealed or began_with(info):
        return info
    for decoder in _EARLIER:
        with suppress(UnreadableSource):
            earlier = probe(spec, decoder=decoder, timeout_s=how.timeout_s)
            if began_with(earlier):
                return earlier
    return info


def _plan_job(run: BatchRun, spec: SourceSpec, info: SourceInfo, frames: int, now: Identity) -> VideoJob:
    """What the workers need to know of a video.

    Raises:
        StageError: its frames are smaller than one patch.
    """
    model, config = run.model, run.config
    plan, grid = grid_of(model, config, (info.height, info.width))
    archive = None
    if config.archive.enabled and model.bundle.entry.archive.blocks:
        archived = archive_key(run.key, model.bundle, now.quick, info.decoder)
        archive = ArchiveJob(segment_info(model, config, plan, grid), archived)
    return VideoJob(
        config=config,
        spec=replace(spec, paths=tuple(absolute(path) for path in spec.paths)),
        info=info,
        files=VideoFolder(absolute(run.folder.video(spec.id).root)),
        frames=frames,
        plan=plan,
        grid=grid,
        kinds={task: model.bundle.kinds[task] for task in model.tasks},
        base=model.bundle.entry.base,
        key=segment_key(run.key, now.quick, info.decoder),
        input_full=now.full,
        fence=run.fence,
        archive=archive,
    )
