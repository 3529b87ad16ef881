"""The batch flow: every input is computed segment by segment, and each segment is sealed when it is whole.

A sealed segment is never computed again. One loop hears what the workers do, one event after the other, and alone
decides which videos are finished, failed or over the archive's budget.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from deltascene.cache.keys import fingerprint
from deltascene.cache.places import remove
from deltascene.pipeline.batch.archive_plan import archive_estimate, refuse_too_large
from deltascene.pipeline.batch.batch_run import BatchRun
from deltascene.pipeline.batch.failures import failing, unreadable
from deltascene.pipeline.batch.plan_video import plan_video
from deltascene.pipeline.batch.resume import require_same_input
from deltascene.pipeline.batch.video_progress import VideoProgress
from deltascene.pipeline.runs.done import Done, intact, read_done, write_done
from deltascene.pipeline.runs.folder import VideoFolder
from deltascene.pipeline.runs.links import refuse_links
from deltascene.pipeline.runs.videos_table import VideoRecord, VideosTable
from deltascene.pipeline.sources.identity import identity
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.text import path_text
from deltascene.pipeline.workers.finish import Finished, FinishProgress, draws, finish_video
from deltascene.pipeline.workers.jobs import Segment, SpanDone
from deltascene.pipeline.workers.worker import WorkEvent


def run_batch(run: BatchRun, specs: Sequence[SourceSpec]) -> list[VideoRecord]:
    """Processes inputs, as many at once as there are workers; one that fails doesn't stop the rest.

    Returns:
        One record per input that was reached, in order.

    Raises:
        DiskFull: no room is left; what was finished is sealed.
        NoCapacity: the cluster has no room for any worker any more; what was finished is sealed.
        OutputError: earlier results of an input were made from other bytes.
    """
    run.folder.errors_jsonl.unlink(missing_ok=True)
    run.pool.archive(run.archive_left != 0)
    inputs = [VideoRecord(spec.id, path_text(spec.path), "waiting") for spec in specs]
    with VideosTable(run.folder.videos_parquet, inputs) as table:
        flow = _Flow(run, specs, table)
        flow.run_all()
    return [flow.records[spec.id] for spec in specs if spec.id in flow.records]


class _Flow:
    """The inputs of a run: those that wait, those under way, and the records of those that ended.

    Attributes:
        records: record of every input that was reached, by id.
    """

    def __init__(self, run: BatchRun, specs: Sequence[SourceSpec], table: VideosTable) -> None:
        self.records = dict[str, VideoRecord]()
        self._run, self._table = run, table
        self._waiting, self._under_way = deque(specs), dict[str, VideoProgress]()

    def run_all(self) -> None:
        """Takes every input from its begin to its end, or until a stop is asked for."""
        run = self._run
        while True:
            while self._waiting and not run.stop.asked and run.pool.waiting() < run.pool.workers:
                self._begin(self._waiting.popleft())
                self._keep_table()
            if run.stop.asked:
                run.pool.drop()
            event = run.pool.next()
            if event is not None:
                self._handle(event)
                self._keep_table()
            elif run.stop.asked or not self._waiting:
                break
        for video in self._under_way.values():  # stopped before their end
            self._end(_stop_video(run, video))

    def _begin(self, spec: SourceSpec) -> None:
        """Begins an input. Listeners are told outside of `failing`, as their errors aren't the input's."""
        kept: VideoRecord | None = None
        with failing(self._run.folder, spec, self._fail):
            kept = self._kept_or_planned(spec)
        if kept is not None:
            self._end(kept, reused=True)
        elif (video := self._under_way.get(spec.id)) is not None:
            frames = sum(segment.frames for segment in video.left)
            estimate = archive_estimate(video.job, frames, self._run.archive_left)
            self._run.events.video_started(spec, video.job.frames, video.job.frames - frames, estimate)

    def _kept_or_planned(self, spec: SourceSpec) -> VideoRecord | None:
        """Hands an input's segments to the workers; the record of one with nothing to compute.

        Raises:
            SourceError: it can't be read.
            StageError: its frames are smaller than one patch.
            OutputError: its earlier results were made from other bytes.
            DiskFull: its archive doesn't fit on the disk.
        """
        run, files = self._run, self._run.folder.video(spec.id)
        refuse_links(files.root, below=True)
        now = identity(spec, run.config.run.verify == "full")
        if (done := read_done(files)) is not None and done.record.without_valid:
            remove(files.done)  # tried again, as an input that failed; it may have been repaired
        elif done is not None:
            known = require_same_input(files, done, spec, now)
            if intact(files, done):
                _keep_done(run, files, done, known)
                return known.record
            remove(files.done)
        video = plan_video(run, spec, now)
        left = video.left
        frames = sum(segment.frames for segment in left)
        files.root.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(files)
        refuse_too_large(video.job, frames, run.archive_left)
        self._under_way[spec.id] = video
        if video.complete:
            run.pool.finish(video.finish_job)
        else:
            run.pool.add(video.job, left)
        return None

    def _handle(self, event: WorkEvent) -> None:
        """Handles what happened to a segment, or to the end of a video, which follows its last segment."""
        run, video = self._run, self._under_way.get(event.item.job.id)
        if video is None:  # it failed, and its other segments are of no use
            return
        video.count(event)
        self._tell(video.spec, event)
        record: VideoRecord | None = None
        with failing(run.folder, video.spec, self._fail):
            if event.error is not None:
                raise event.error
            if isinstance(event.step, Finished):
                record = _finish_video(run, video, event.step)
                del self._under_way[video.job.id]
            if event.done is not None and event.done.seal is not None:
                self._keep_seal(video, event.item.segment, event.done)
        if record is not None:
            self._end(record)

    def _tell(self, spec: SourceSpec, event: WorkEvent) -> None:
        """Tells the listener what happened."""
        events = self._run.events
        if event.lost is not None and isinstance(event.item.work, Segment):
            events.frames_lost(spec, event.lost)
        if isinstance(event.step, FinishProgress):
            events.finishing(spec, event.step.what, event.step.share)
        if event.done is not None:
            for frame in event.done.frames:
                events.frame_done(spec, frame)

    def _keep_seal(self, video: VideoProgress, segment: Segment, done: SpanDone) -> None:
        """Notes a finished segment; after the last one its video is finished."""
        run = self._run
        assert done.seal is not None
        video.seals[segment.start] = done.seal
        run.count_archived(done.archived, left_out=video.job.archive is not None and not segment.archived)
        if video.complete:
            run.pool.finish(video.finish_job)

    def _fail(self, record: VideoRecord) -> None:
        """Ends an input that failed; segments of it that no worker has taken yet are dropped."""
        video = self._under_way.pop(record.id, None)
        if video is not None:
            self._run.pool.drop(video.job.id)
            record = replace(record, **video.so_far)
        self._end(record)

    def _end(self, record: VideoRecord, *, reused: bool = False) -> None:
        """Keeps the record of an input that ended."""
        self._run.events.video_ended(record, reused=reused)
        self.records[record.id] = record
        self._table.put(record)

    def _keep_table(self) -> None:
        self._table.keep({id_: video.so_far for id_, video in self._under_way.items()})


def _keep_done(run: BatchRun, files: VideoFolder, done: Done, known: Done) -> None:
    """Leaves a finished video as it is; adds what is known of its input now, and removes what a killed run left."""
    if known != done:
        run.fence.require()
        write_done(files, known)
    _tidy(files, [start for start, _ in done.segments])


def _finish_video(run: BatchRun, video: VideoProgress, finished: Finished) -> VideoRecord:
    """Marks a video as finished: all of it can be read, and what is drawn from it is there."""
    record = video.record(finished, "done", video.cause)
    if record.without_valid:
        record = unreadable(run.folder, video.spec, record)
    run.fence.require()
    segments = [(seal.start, seal.frames) for seal in video.prefix]
    write_done(video.job.files, Done(record, fingerprint(run.key), segments, finished.sums or {}))
    _tidy(video.job.files, [start for start, _ in segments])
    return record


def _stop_video(run: BatchRun, video: VideoProgress) -> VideoRecord:
    """Makes what there is of a video readable when a run ends before it did; the next run draws its pictures."""
    (finished,) = finish_video(replace(video.finish_job, pictures=False))
    assert isinstance(finished, Finished), "nothing is drawn"
    if not video.complete:
        return video.record(finished, "partial")
    if draws(video.job.config.save):
        return video.record(finished, "partial", "pictures not drawn yet")
    return _finish_video(run, video, finished)


def _tidy(files: VideoFolder, starts: Sequence[int]) -> None:
    """Removes the sealed parts of a finished video; parts of a task that isn't added to all of it yet stay."""
    for task in ("", *files.added_tasks(starts)):
        for start in starts:
            remove(files.part(start, task))
    _remove_unfinished(files)
    if files.segments.is_dir() and not any(files.segments.iterdir()):
        remove(files.segments)


def _remove_unfinished(files: VideoFolder) -> None:
    """Removes folders of segments that a killed run didn't seal."""
    for folder in (files.root, files.activations):
        remove(folder / "unfinished")
