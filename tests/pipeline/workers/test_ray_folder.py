"""Ray's sockets lie in a short private folder where the user's own for temporary files can't hold them."""

import os
import stat
from pathlib import Path

import pytest

from deltascene.pipeline.config import load_config
from deltascene.pipeline.errors import UsageError
from deltascene.pipeline.workers import ray_folder, ray_pool
from deltascene.pipeline.workers.ray_folder import LONGEST, short_folder
from deltascene.pipeline.workers.ray_pool import RayPool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="paths of sockets")


@pytest.fixture
def short(monkeypatch, tmp_path_factory):
    """A short folder that stands for /tmp."""
    with short_folder({"TMPDIR": "/" + "x" * LONGEST}) as path:
        monkeypatch.setattr(ray_folder, "_SHORT", (path,))
        yield Path(path)


def test_what_ray_would_take_is_kept_where_it_can_be_used(short):
    (short / "with space").mkdir()
    for environment in ({}, {"TMPDIR": str(short)}, {"RAY_TMPDIR": str(short / "with space"), "TMPDIR": "/none"}):
        assert short_folder(environment) is None


@pytest.mark.parametrize("kind", ["long", "missing", "a file", "not ASCII", "relative", "of others", "of RAY_TMPDIR"])
def test_what_cannot_be_used_is_replaced_by_a_private_folder_that_goes(short, kind):
    folders = {
        "long": short / ("x" * LONGEST),
        "not ASCII": short / "ü",
        "relative": Path(),
        "for Ray": short / ("y" * 30),
    }
    folder = folders.get(kind, short / "tmp")
    if kind in ("long", "not ASCII", "of others"):
        folder.mkdir()
    if kind == "a file":
        folder.touch()
    if kind == "of others":
        (folder / "ray").symlink_to("/proc/1/none")
    made = short_folder({"RAY_TMPDIR" if kind == "of RAY_TMPDIR" else "TMPDIR": str(folder)})
    assert made is not None
    path = Path(made.name)
    assert path.parent == short
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert path.stat().st_uid == os.getuid()
    made.cleanup()
    assert not path.exists()


def test_no_place_at_all_is_one_line_with_a_way_out(monkeypatch):
    monkeypatch.setattr(ray_folder, "_SHORT", ("/none",))
    with pytest.raises(UsageError, match=r"^TMPDIR: expected a folder .* 39 bytes; found .*none.*set RAY_TMPDIR"):
        short_folder({"TMPDIR": "/none"})


def test_a_cluster_starts_where_the_users_folder_is_long_and_not_ascii(tmp_path, monkeypatch):
    """Without workers, which take longer to start."""
    long = tmp_path / ("ü" * 30) / ("x" * LONGEST)
    long.mkdir(parents=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(ray_pool, "_setup_of", lambda *_, **__: None)
    monkeypatch.setattr(RayPool, "_start_workers", lambda *_: [])
    pool = RayPool(None, load_config(overrides=["run.executor=ray"]))
    assert pool._folder is not None
    folder = Path(pool._folder.name)
    assert list(folder.glob("session_*/sockets/*"))
    pool.close()
    assert not folder.exists()
    assert not any(long.iterdir())
