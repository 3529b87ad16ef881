"""A run is read as its folders say, also where it was killed."""

import pytest

from deltascene import open_run
from deltascene.pipeline.runs.done import Done, write_done
from deltascene.pipeline.runs.folder import RunFolder
from deltascene.pipeline.runs.videos_table import VideoRecord, write_records


def test_after_a_kill_readers_see_what_the_folders_of_the_videos_say(tmp_path):
    folder = RunFolder(tmp_path)
    folder.run_yaml.write_text("deltascene: 1\n")
    statuses = {"killed": "running", "finished": "running", "late": "waiting", "early": "waiting"}
    write_records(folder.videos_parquet, [VideoRecord(id_, "s", status) for id_, status in statuses.items()])
    for id_ in ("finished", "late"):
        folder.video(id_).root.mkdir(parents=True)
        write_done(folder.video(id_), Done(VideoRecord(id_, "s", "done", frames=3), "f", [(0, 3)], {}))
    run = open_run(tmp_path)
    assert [(video.status, len(video)) for video in run.videos] == [
        ("partial", 0), ("done", 3), ("done", 3), ("waiting", 0),
    ]  # fmt: skip
    assert run["late"].status == "done"
    with pytest.raises(KeyError, match="'x': the run has killed, finished, late, early"):
        run["x"]
