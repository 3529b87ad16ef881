"""Writes rooms as a folder of labelled images: images, seg, depth, normals, edges and split.csv."""

import csv
import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deltascene.pipeline.training.rooms.catalogue import load_catalogue
from deltascene.pipeline.training.rooms.errors import RoomImpossible
from deltascene.pipeline.training.rooms.meshes import MeshStore
from deltascene.pipeline.training.rooms.render import World, add_noise, expose, paint_view, to_bytes, truth_of
from deltascene.pipeline.training.rooms.scene import Furniture, SceneConfig, build_scene
from deltascene.pipeline.training.rooms.splits import seeds_of, split_of
from deltascene.pipeline.training.rooms.surfels import at_rest
from deltascene.pipeline.training.rooms.truth import Truth
from deltascene.pipeline.training.rooms.views import ViewConfig, choose_views

LOG = logging.getLogger(__name__)
ROOMS_BEFORE_FRESH_STORE = 15


@dataclass(frozen=True)
class SetConfig:
    """A data set of rooms.

    Attributes:
        meshes_dir: folder with the furniture libraries.
        cache_dir: folder for parsed meshes.
        out_dir: folder of the data set.
        rooms: number of rooms of each split.
        views: views of each room.
        height: rows of a frame.
        width: columns of a frame.
        noise_sigma: maximum sensor noise of a picture, in steps of 255; each picture draws its own.
        field_deg: minimum and maximum horizontal field of view.
        scene: distribution of rooms.
    """

    meshes_dir: Path
    cache_dir: Path
    out_dir: Path
    rooms: dict[str, int]
    views: int = 6
    height: int = 224
    width: int = 308
    noise_sigma: float = 3.0
    field_deg: tuple[float, float] = ViewConfig.field_deg
    scene: SceneConfig = field(default_factory=SceneConfig)


@dataclass(frozen=True)
class RenderedFrame:
    """A picture and its truth."""

    image_HW3: NDArray[np.uint8]
    truth: Truth


def make_set(config: SetConfig, workers: int) -> None:
    """Writes the first rooms of every split, as `make_rooms` does."""
    make_rooms(config, [seed for split, count in config.rooms.items() for seed in seeds_of(split, count)], workers)


def make_rooms(config: SetConfig, wanted: list[int], workers: int) -> None:
    """Writes all rooms of these seeds that don't exist yet, then split.csv.

    Rooms without enough good views are logged and left out.

    Raises:
        MeshesMissing: the furniture libraries are missing.
    """
    load_catalogue(config.meshes_dir)
    for name in ("images", "seg", "depth", "normals", "edges", "rooms"):
        (config.out_dir / name).mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in wanted if not _done(config.out_dir, seed).exists()]
    LOG.info("%d rooms wanted, %d to make", len(wanted), len(missing))
    chunks = [missing[i : i + ROOMS_BEFORE_FRESH_STORE] for i in range(0, len(missing), ROOMS_BEFORE_FRESH_STORE)]
    start, made = time.perf_counter(), 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for frames in pool.map(_make_rooms, [config] * len(chunks), chunks):
            made += frames
            LOG.info("%d frames, %.3f s a frame", made, (time.perf_counter() - start) / max(made, 1))
    write_split(config.out_dir, wanted)


def _make_rooms(config: SetConfig, seeds: list[int]) -> int:
    """Writes some rooms in a worker process; returns the number of frames."""
    furniture = Furniture(load_catalogue(config.meshes_dir), MeshStore(config.cache_dir))
    count = 0
    for seed in seeds:
        try:
            frames = room_frames(seed, config, furniture)
        except RoomImpossible as error:
            LOG.warning("room %d left out: %s", seed, error)
            frames = []
        stems = [f"{seed:06d}_{view}" for view in range(len(frames))]
        for stem, frame in zip(stems, frames, strict=True):
            write_frame(config.out_dir, stem, frame)
        _write_whole(_done(config.out_dir, seed), json.dumps({"stems": stems}))
        count += len(frames)
    return count


def room_frames(seed: int, config: SetConfig, furniture: Furniture) -> list[RenderedFrame]:
    """All views of a room with their truth; a pure function of seed and config.

    Raises:
        RoomImpossible: the room has too few good views.
    """
    scene = build_scene(seed, config.scene, furniture)
    world = World((at_rest(scene.static),), scene.lighting)
    rng = np.random.default_rng([seed, 2])
    view_config = ViewConfig(aspect=config.width / config.height, field_deg=config.field_deg)
    frames = []
    for camera in choose_views(rng, scene, world.bodies[0], config.views, view_config):
        picture = paint_view(world, camera, config.height, config.width)
        gain = expose(scene.lighting, picture) * float(rng.uniform(0.8, 1.25))
        image = to_bytes(picture.radiance_HW3, gain)
        noisy = add_noise(rng, image, float(rng.uniform(0, config.noise_sigma)))
        frames.append(RenderedFrame(noisy, truth_of(picture.surfels, camera, config.height, config.width)))
    return frames


def write_frame(out_dir: Path, stem: str, frame: RenderedFrame) -> None:
    """Writes a picture and its truth under a stem."""
    Image.fromarray(frame.image_HW3).save(out_dir / "images" / f"{stem}.png", compress_level=1)
    Image.fromarray(frame.truth.seg_HW).save(out_dir / "seg" / f"{stem}.png")
    np.save(out_dir / "depth" / f"{stem}.npy", frame.truth.depth_HW)
    np.save(out_dir / "normals" / f"{stem}.npy", frame.truth.normals_HW3)
    Image.fromarray(frame.truth.edges_HW).save(out_dir / "edges" / f"{stem}.png")


def write_split(out_dir: Path, seeds: list[int]) -> None:
    """Writes split.csv with the columns stem, split and room from the rooms that are done."""
    partial = out_dir / "split.csv.part"
    with partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stem", "split", "room"])
        for seed in seeds:
            for stem in json.loads(_done(out_dir, seed).read_text(encoding="utf-8"))["stems"]:
                rows.writerow([stem, split_of(seed), seed])
    partial.replace(out_dir / "split.csv")


def _done(out_dir: Path, seed: int) -> Path:
    """File that marks a room as finished, written last."""
    return out_dir / "rooms" / f"{seed:06d}.json"


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
