"""The output folder of a run, on a disk or in an object store: its paths, and `run.yaml`.

OUT/run.yaml  videos.parquet  errors.jsonl  report.html  report.json  locks/ (pipeline/runs/lock.py)
OUT/videos/<id>/predictions.zarr  frames.parquet  overlay.webm  accuracy.json  done.json  activations.zarr
OUT/videos/<id>/segments/<start>.zip     finished segments of a video that isn't done yet
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltascene.cache.places import Place, write_whole
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.schema import refuse_newer
from deltascene.pipeline.safe_yaml import parse_yaml, render_yaml
from deltascene.pipeline.text import one_line


class RunFolder:
    """Paths below an OUT folder."""

    def __init__(self, root: Place) -> None:
        self.root = root

    @property
    def run_yaml(self) -> Place:
        """Resolved config, versions, numerics, fingerprints."""
        return self.root / "run.yaml"

    @property
    def videos_parquet(self) -> Place:
        """One row per input."""
        return self.root / "videos.parquet"

    @property
    def errors_jsonl(self) -> Place:
        """One line per failed input."""
        return self.root / "errors.jsonl"

    def video(self, id_: str) -> "VideoFolder":
        """One video's folder.

        Raises:
            OutputError: the id isn't a plain name.
        """
        folder = self.root / "videos" / id_
        if id_ in ("", ".", "..") or folder.parent != self.root / "videos" or "\0" in id_:
            raise OutputError(f"video id: expected a plain name; found {id_!r}")
        return VideoFolder(folder)


class VideoFolder:
    """Paths below OUT/videos/<id>."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self.predictions = root / "predictions.zarr"
        self.frames_parquet = root / "frames.parquet"
        self.overlay = root / "overlay.webm"
        self.accuracy = root / "accuracy.json"
        self.done = root / "done.json"
        self.segments = root / "segments"
        self.activations = root / "activations.zarr"

    def inside(self, name: str) -> Place:
        """A file below it, by a name that was read from a file.

        Raises:
            OutputError: the name leads out of the folder.
        """
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise OutputError(f"{self.root}: expected a name below it; found {name!r}")
        return self.root / name

    def part(self, start: int, task: str = "") -> Place:
        """File of the finished segment that starts at a processed frame, or of what a task added to it later."""
        return self.segments / f"{start:08d}{'.' if task else ''}{task}.zip"

    def added_tasks(self, starts: Sequence[int]) -> list[str]:
        """Names of the tasks that were added later to all of these segments."""
        tasks = sorted({path.name.split(".")[1] for path in self.segments.glob("*.*.zip")})
        return [task for task in tasks if all(self.part(start, task).is_file() for start in starts)]


def write_run_yaml(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """Writes `run.yaml` whole."""
    write_whole(folder.run_yaml, render_yaml(dict(data)))


def read_run_yaml(folder: RunFolder) -> dict[str, Any]:
    """Reads `run.yaml`.

    Raises:
        OutputError: there is none, or it can't be read, or a newer version wrote it.
    """
    try:
        if not folder.run_yaml.is_file():
            raise OutputError(f"{folder.root}: expected a run's folder; found no run.yaml in it")
        data = parse_yaml(folder.run_yaml.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder.run_yaml}: can't be read: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise OutputError(f"{folder.run_yaml}: expected a mapping; found {type(data).__name__}")
    refuse_newer(folder.run_yaml, data.get("schema_version"))
    return data
