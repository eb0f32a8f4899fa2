"""Films of episodes: GIF, and MP4 with the extra ``film``."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ppo_jax.errors import UserError, require_package
from ppo_jax.files import replacing

FORMATS = (".gif", ".mp4")


class Film(NamedTuple):
    """What is to be filmed.

    Attributes:
      fps: frames per second.
      frames: uint8 ``[height, width, 3]``, drawn as they are asked for; sizes are even.
    """

    fps: float
    frames: Iterator[np.ndarray]


def require_format(path: Path) -> None:
    """Raise a ``UserError`` unless a film can be written to `path`."""
    if path.suffix not in FORMATS:
        raise UserError(f"--record takes a file that ends in .gif or .mp4, but got {str(path)!r}")
    if path.suffix == ".mp4":
        require_package("imageio_ffmpeg", extra="film", option="--record FILE.mp4")


def write(path: Path, film: Film) -> int:
    """Write `film` to `path`, whole or not at all, and return how many steps it shows."""
    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for frame in film.frames:
            count += 1
            yield frame

    with replacing(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(temporary, film.fps, counted())
        else:
            _write_mp4(temporary, film.fps, counted())
    return count - 1  # The first one shows the start.


def _write_gif(path: Path, fps: float, frames: Iterator[np.ndarray]) -> None:
    # Half a palette is enough for what environments draw, and quick to find.
    images = (Image.fromarray(frame).quantize(128) for frame in frames)
    milliseconds = max(20, round(100 / fps) * 10)  # A GIF counts in hundredths of a second.
    next(images).save(
        path, save_all=True, append_images=images, duration=milliseconds, loop=0, optimize=False
    )


def _write_mp4(path: Path, fps: float, frames: Iterator[np.ndarray]) -> None:
    import imageio_ffmpeg

    first = next(frames)
    height, width, _ = first.shape
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2)
    with warnings.catch_warnings():
        # ffmpeg is started by fork and exec at once, which threads do not mind.
        warnings.filterwarnings("ignore", r"os\.fork", RuntimeWarning)
        writer.send(None)
    for frame in itertools.chain([first], frames):
        writer.send(np.ascontiguousarray(frame))
    writer.close()
