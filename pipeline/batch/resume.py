"""What an earlier run left, and whether this one may go on with it.

Results depend on a key: result config, weights, numerics, and per input its bytes and decoder. Where the key differs,
nothing is mixed: the run is refused by the first thing that differs.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deltascene.cache.errors import BrokenSeal, CacheError
from deltascene.cache.keys import fingerprint, first_difference, shortened
from deltascene.cache.places import remove
from deltascene.cache.seal import Seal, read_seal
from deltascene.cache.zarr_store import ZarrStore
from deltascene.pipeline.bundles.fetch import public_url
from deltascene.pipeline.config import Config, NumericsConfig
from deltascene.pipeline.errors import OutputError
from deltascene.pipeline.runs.done import Done
from deltascene.pipeline.runs.folder import RunFolder, VideoFolder, read_run_yaml, write_run_yaml
from deltascene.pipeline.sources.identity import Identity, recognise
from deltascene.pipeline.sources.spec import SourceSpec
from deltascene.pipeline.versions import machine_record, versions_record
from deltascene.pipeline.workers.jobs import Segment


def refuse_foreign(folder: RunFolder) -> None:
    """Leaves alone what no run made.

    Raises:
        OutputError: the folder holds other files.
    """
    foreign = folder.root.is_dir() and not folder.run_yaml.is_file()
    if foreign and any(path.name != "locks" for path in folder.root.iterdir()):
        raise OutputError(
            f"{folder.root}: expected an empty folder or an earlier run's; found other files; choose another -o"
        )


def claim_folder(folder: RunFolder, config: Config, key: Mapping[str, Any], *, force: bool) -> None:
    """Writes `run.yaml`, or checks that the one there describes the same run.

    Raises:
        OutputError: the folder holds results of another config, model or machine.
    """
    if folder.run_yaml.is_file() and not force:
        before = read_run_yaml(folder).get("key")
        difference = first_difference(before if isinstance(before, dict) else {}, key)
        if difference:
            name, found, wanted = difference
            raise OutputError(
                f"{folder.root}: holds a run with {name} = {shortened(found)}; this one has {shortened(wanted)};"
                " choose another -o, or --force to replace it"
            )
        return
    if force:
        remove(folder.root / "videos")
        folder.videos_parquet.unlink(missing_ok=True)
    write_run_yaml(
        folder,
        {
            "deltascene": 1,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "fingerprint": fingerprint(key),
            "config": {**config.model_dump(mode="json"), "model": public_url(config.model)},
            "versions": versions_record(),
            "machine": machine_record(),
            "key": dict(key),
        },
    )


def as_begun(folder: RunFolder, config: Config) -> Config:
    """A config whose open questions of arithmetic are answered as by the run that is there, so that it can go on.

    So threads, type and kernel don't depend on whether a machine measures the same twice, or on where it computes.
    """
    recorded = read_run_yaml(folder).get("config") if folder.run_yaml.is_file() else None
    before = recorded.get("numerics") if isinstance(recorded, dict) else None
    if not isinstance(before, dict):
        return config
    asked = config.numerics.model_dump()
    answers = {name: before[name] for name in asked if asked[name] in (None, "auto") and name in before}
    try:
        numerics = NumericsConfig.model_validate(asked | answers)
    except ValidationError:  # whoever goes on compares keys, and says what differs
        return config
    return config.model_copy(update={"numerics": numerics})


def sealed_segments(
    files: VideoFolder, keys: Collection[str], segments: Sequence[Segment], input_full: str = ""
) -> dict[int, Seal]:
    """Seals of the finished segments among those planned, by start; all others are removed and done again.

    One whose archived activations were harmed isn't finished; one that wasn't archived, or no longer is, may be.

    Args:
        files: of the video.
        keys: fingerprints that a segment may have.
        segments: those planned.
        input_full: full hash of the input, if known; a segment that was made from an input with another isn't finished.
    """
    seals, harmed = {}, harmed_archives(files)
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
        if fits and segment.start not in harmed:
            seals[segment.start] = seal
        else:
            remove(path)
    return seals


def require_same_input(files: VideoFolder, done: Done, spec: SourceSpec, now: Identity) -> Done:
    """Refuses results that were made from another input.

    Args:
        files: of the video.
        done: what its `done.json` says.
        spec: the input.
        now: its identity.

    Returns:
        The same with all that is known of the input's identity by now.

    Raises:
        OutputError: they were.
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


def harmed_archives(files: VideoFolder) -> set[int]:
    """Starts of archived segments that don't hold the bytes any more that were sealed."""
    store, harmed = ZarrStore(files.activations), set()
    for start in store.starts():
        try:
            store.verify(start)
        except CacheError:
            harmed.add(start)
    return harmed
