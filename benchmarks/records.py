"""Records of scores on disk, so that clips aren't scored twice."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltascene.cache.keys import file_sha256, fingerprint
from deltascene.pipeline.bundles.scene_model import SceneModel
from deltascene.pipeline.evaluation.clip_scores import Columns
from deltascene.pipeline.evaluation.clips import Clip
from deltascene.pipeline.sources.find import find_sources
from deltascene.pipeline.sources.identity import identity

SCORING = 1  # version of the scores; incremented when their meaning changes


@dataclass(frozen=True)
class Records:
    """Files `<clip>.<policy>.npz` in a folder; without a folder, nothing is kept.

    Attributes:
        folder: folder of the files, or None.
        weights: fingerprint of the model's weights.
        frames: maximum number of frames of each clip.
    """

    folder: Path | None
    weights: str
    frames: int

    @classmethod
    def of(cls, folder: Path | None, model: SceneModel, frames: int) -> "Records":
        """Records of a model."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        sums = [file_sha256(path) for path in model.bundle.weight_files(model.tasks)]
        return cls(folder, fingerprint({"weights": sums, "tasks": list(model.tasks)}), frames)

    def within(self, name: str) -> "Records":
        """Records of the same model in a folder below this one."""
        if self.folder is None:
            return self
        (self.folder / name).mkdir(exist_ok=True)
        return replace(self, folder=self.folder / name)

    def read(self, clip: Clip, name: str, what: Mapping[str, Any]) -> Columns | None:
        """The kept record of a policy on a clip; None if there is none with the same clip, weights and settings."""
        path = self._path(clip, name)
        if path is None or not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != self._key(clip, what):
                return None
            return {column: kept[column] for column in kept.files if column != "key"}

    def write(self, clip: Clip, name: str, what: Mapping[str, Any], record: Columns) -> None:
        """Keeps the record of a policy on a clip."""
        path = self._path(clip, name)
        if path is not None:
            arrays: dict[str, Any] = {**record, "key": np.array(self._key(clip, what))}
            np.savez_compressed(path, **arrays)

    def _path(self, clip: Clip, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{clip.name}.{name}.npz"

    def _key(self, clip: Clip, what: Mapping[str, Any]) -> str:
        video = identity(find_sources([str(clip.path)])[0]).quick
        about = {"video": video, "weights": self.weights, "frames": self.frames, "scoring": SCORING}
        return fingerprint({**about, "what": dict(what)})
