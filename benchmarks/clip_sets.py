"""The clips on which savings are measured, by the seeds of their rooms; thresholds are chosen on `val` only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClipSpec:
    """Parameters of a clip: arguments of `python -m deltascene.pipeline.training.rooms clip`.

    Attributes:
        name: of its files.
        seed: of its room.
        kind: of its content.
        noise: of the sensor, in steps of 255.
        crf: rate factor of the codec.
        rate: frames per second.
    """

    name: str
    seed: int
    kind: str
    noise: float = 2.0
    crf: int = 16
    rate: int = 15

    @property
    def still(self) -> bool:
        """Whether the camera is still throughout the clip; means are over these clips."""
        return self.kind not in ("pan", "drift", "cut", *MOVING)

    @property
    def group(self) -> str:
        """Kinds over which means are taken: `still`, `busy`, `idle`, `cut`, or `moving camera`."""
        if self.kind in (*MOVING, "pan", "drift"):
            return "moving camera"
        return {"empty": "idle"}.get(self.kind, self.kind if self.kind in ("busy", "idle", "cut") else "still")

    def arguments(self, folder: Path, meshes: Path, cache: Path) -> list[str]:
        """Arguments of the command that renders it."""
        where = ["--meshes", str(meshes), "--cache", str(cache), "--out", str(folder / f"{self.name}.mp4")]
        about = ["--seed", str(self.seed), "--kind", self.kind, "--noise", str(self.noise), "--crf", str(self.crf)]
        if self.rate != 15 or self.name.endswith("_15"):  # one motion at several rates
            about += ["--fps", "60", "--frames", "600", "--step", str(60 // self.rate)]
        return ["clip", *where, *about]


MOVING = ("hand_slow", "hand_fast", "walk_through", "drive", "tripod", "shake")
RATES = (5, 15, 30, 60)


def like_life(part: str, seed: int) -> list[ClipSpec]:
    """Clips of what cameras see in people's lives, H.264 at rate factors of 23 to 32; each kind in another room."""
    kinds = {
        "hand_slow": 26,
        "hand_fast": 26,
        "walk_through": 23,
        "drive": 28,
        "tripod": 25,
        "shake": 28,
        "clock": 28,
        "foliage": 30,
        "rain": 28,
        "night": 32,
        "infrared": 30,
        "headlights": 28,
        "pumping": 26,
        "idle": 28,
        "calm_busy": 26,
        "light_switch": 26,
    }
    seeds = {kind: seed + at for at, kind in enumerate(kinds)}
    if part == "test":
        seeds["drive"] = 300433  # 300403 is a room without a good view from near the floor
    clips = [ClipSpec(f"{part}_{kind}", seeds[kind], kind, crf=crf) for kind, crf in kinds.items()]
    for at, kind in enumerate(("lively", "hand_slow")):
        clips += [ClipSpec(f"{part}_{kind}_{rate}", seed + 50 + at, kind, crf=26, rate=rate) for rate in RATES]
    return clips


CLIPS: Mapping[str, Sequence[ClipSpec]] = {
    "demo": (ClipSpec("room", 300005, "lively"),),
    "val": (
        ClipSpec("val_static", 300100, "static"),
        ClipSpec("val_busy", 300102, "busy"),
        ClipSpec("val_lively", 300101, "lively"),
        ClipSpec("val_noise", 300103, "static", noise=5),
        ClipSpec("val_codec", 300104, "lively", crf=32),
        ClipSpec("val_flicker", 300107, "flicker"),
        ClipSpec("val_cut", 300106, "cut"),
        ClipSpec("val_pan", 300105, "pan"),
        ClipSpec("val_drift", 300108, "drift"),
    ),
    "test": (
        ClipSpec("test_static", 300200, "static"),
        ClipSpec("test_busy", 300201, "busy"),
        ClipSpec("test_noise", 300202, "static", noise=5),
        ClipSpec("test_codec", 300203, "lively", crf=32),
        ClipSpec("test_flicker", 300206, "flicker"),
        ClipSpec("test_cut", 300205, "cut"),
        ClipSpec("test_pan", 300204, "pan"),
        ClipSpec("test_drift", 300207, "drift"),
        ClipSpec("test_lively", 300208, "lively"),
        ClipSpec("test_crowd", 300209, "busy"),
        ClipSpec("test_quiet", 300210, "static"),
        ClipSpec("test_empty", 300211, "empty"),
    ),
    "life_val": tuple(like_life("val", 300300)),
    "life_test": tuple(like_life("test", 300400)),
}


def rendered(folder: Path, part: str) -> list[ClipSpec]:
    """Clips of a part that are in a folder with their truth."""
    return [spec for spec in CLIPS[part] if (folder / f"{spec.name}.truth.npz").is_file()]
