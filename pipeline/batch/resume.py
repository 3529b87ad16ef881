"""What an earlier run left in the output folder, and whether this run may resume it.

Results depend on a key (`pipeline/batch/keys.py`). Results of different keys are never mixed: a run whose key differs
from the recorded one is refused, and the error names the first value that differs.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltascene.cache.errors import BrokenSeal, CacheError
from deltascene.cache.keys import fingerprint, first_difference, shortened
from deltascene.cache.places import remove
from deltascene.cache.seal import Seal, read_seal
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.batch.choose_config import WAY_OUT, Choice
from deltascene.pipeline.bundles.fetch import public_url
from deltascene.pipeline.config import as_before
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.done import Done
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder, read_run_yaml, write_run_yaml
from deltascene.pipeline.runs.schema import SCHEMA_VERSION
from deltascene.pipeline.sources.identity import Identity, recognise
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.versions import machine_record, versions_record
from deltascene.pipeline.workers.jobs import Segment


def refuse_foreign(folder: RunFolder) -> None:
    """Refuses an output folder that isn't empty and isn't a run's.

    Raises:
        OutputError: the folder holds other files.
    """
    foreign = folder.root.is_dir() and not folder.run_yaml.is_file()
    if foreign and any(path.name != "locks" for path in folder.root.iterdir()):
        raise OutputError(
            f"{folder.root}: expected an empty folder or an earlier run's; found other files; choose another -o"
        )


def recorded_key(folder: RunFolder) -> dict[str, Any]:
    """Key of the run that was begun in a folder; empty where there is none."""
    key = read_run_yaml(folder).get("key") if folder.run_yaml.is_file() else None
    return key if isinstance(key, dict) else {}


def refuse_other(folder: RunFolder, key: Mapping[str, Any], typed: Mapping[str, str], *, all_: bool = True) -> None:
    """Refuses to go on where the folder's run has another key.

    Args:
        folder: the output folder.
        key: key of this run, as returned by `result_key`.
        typed: what the user typed, by the dotted key of the config that it gives a value.
        all_: compare everything, or only what the user typed.

    Raises:
        OutputError: a value differs; it is named as the user typed it, if the user did.
    """
    options = {f"config.{name}": text for name, text in typed.items()}
    lacking = {f"config.{name}": value for name, value in as_before().items()}
    keys = [{**lacking, **each} for each in (recorded_key(folder), key)]
    before, now = keys if all_ else ({name: each.get(name) for name in options} for each in keys)
    if difference := first_difference(before, now):
        name, found, wanted = difference
        if name in options:
            raise OutputError(f"{public_url(options[name])}: {folder.root} has {_as_typed(found)}; {WAY_OUT}")
        raise OutputError(
            f"{folder.root}: holds a run with {name} = {shortened(found)}; this one has {shortened(wanted)};"
            " choose another -o, or --force to replace it"
        )


def _as_typed(value: object) -> str:
    """A recorded value as one would type it."""
    if isinstance(value, list):
        return shortened(", ".join(map(str, value)))
    return json.dumps(value) if value is None or isinstance(value, bool) else shortened(value)


def claim_folder(folder: RunFolder, choice: Choice, key: Mapping[str, Any], *, force: bool) -> None:
    """Writes `run.yaml`, or checks that the one there describes the same run.

    Args:
        folder: the output folder.
        choice: settled config of this run, and how it was chosen.
        key: key of this run, as returned by `result_key`.
        force: whether an earlier run's results are removed instead.

    Raises:
        OutputError: the folder holds results of another config, model or machine.
    """
    if folder.run_yaml.is_file() and not force:
        refuse_other(folder, key, choice.typed)
        return
    if force:
        remove(folder.root / "videos")
        folder.videos_parquet.unlink(missing_ok=True)
    config = choice.config
    write_run_yaml(
        folder,
        {
            "deltascene": 1,
            "schema_version": SCHEMA_VERSION,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "fingerprint": fingerprint(key),
            "preset": choice.preset,
            "config": {**config.model_dump(mode="json"), "model": public_url(config.model)},
            "versions": versions_record(),
            "machine": machine_record(),
            "key": dict(key),
            **({"pilot": dict(choice.pilot)} if choice.pilot else {}),
        },
    )


def sealed_segments(
    files: VideoFolder, keys: Collection[str], segments: Sequence[Segment], input_full: str = ""
) -> dict[int, Seal]:
    """Finds the planned segments that are finished; files of all others are removed, and they are computed again.

    A segment with damaged archived activations isn't finished. One without archived activations may be.

    Args:
        files: folder of the video.
        keys: fingerprints that a finished segment may have.
        segments: the planned segments.
        input_full: full hash of the input; empty if it isn't known. A segment that was made from an input with another
            full hash isn't finished.

    Returns:
        Seals of the finished segments by start.
    """
    seals, damaged = {}, _damaged_archives(files)
    for segment in segments:
        path = files.part(segment.start)
        try:
            seal = read_seal(path)
        except FileNotFoundError:
            continue
        except BrokenSeal:
            remove(path)
            continue
        other = input_full and seal.input_full and seal.input_full != input_full
        fits = seal.fingerprint in keys and seal.frames == segment.frames and not other
        if fits and segment.start not in damaged:
            seals[segment.start] = seal
        else:
            remove(path)
    return seals


def sealed_fingerprints(files: VideoFolder, segments: Sequence[Segment]) -> set[str]:
    """Fingerprints of the planned segments that are sealed, whether they are this run's or not."""
    found = set()
    for segment in segments:
        with suppress(FileNotFoundError, BrokenSeal):
            found.add(read_seal(files.part(segment.start)).fingerprint)
    return found


def require_same_input(files: VideoFolder, done: Done, spec: SourceSpec, now: Identity) -> Done:
    """Refuses results that were made from another input.

    Args:
        files: folder of the video.
        done: content of its `done.json`.
        spec: the input.
        now: identity of the input.

    Returns:
        `done` with everything that is known of the input's identity now.

    Raises:
        OutputError: the results were made from another input.
    """
    record = done.record
    recorded = Identity(record.identity, record.identity_full)
    known = recognise(spec, recorded, now)
    if known is None:
        found, expected = (now.full, recorded.full) if now.full and recorded.full else (now.quick, recorded.quick)
        raise OutputError(
            f"{files.root}: was made from another {Path(record.source).name} (input identity {expected[:12]}…);"
            f" this one has {found[:12]}…; choose another -o, or --force to replace it"
        )
    return replace(done, record=replace(record, identity=known.quick, identity_full=known.full))


def _damaged_archives(files: VideoFolder) -> set[int]:
    """Starts of the archived segments whose bytes aren't those that were sealed."""
    store, damaged = ZarrStore(files.activations), set()
    for start in store.starts():
        try:
            store.verify(start)
        except CacheError:
            damaged.add(start)
    return damaged
