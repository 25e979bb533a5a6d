"""Makes a folder of JPEGs with the statistics of photographs, to measure input with where there are none.

    python -m experiments.speed.make_jpegs --output runs/data/jpegs --count 256

Pixels are noise whose amplitude falls with 1/f, as in natural images, of 500 x 375 pixels in quality 90 (about 110 kB, as in ImageNet).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def picture(draw: np.random.Generator, width: int, height: int) -> np.ndarray:
    """uint8[height, width, 3] of 1/f noise; the channels share most of it, since photographs are far from colourful."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(fy, fx), 1 / max(width, height))

    def plane() -> np.ndarray:
        spectrum = np.fft.rfft2(draw.normal(size=(height, width))) * falling
        made = np.fft.irfft2(spectrum, (height, width))
        return (made - made.mean()) / made.std()

    shared = plane()
    planes = np.stack([0.9 * shared + 0.3 * plane() for _ in range(3)], axis=-1)
    return np.clip(128 + 50 * planes, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--quality", type=int, default=90)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    draw, sizes = np.random.default_rng(0), []
    for i in range(args.count):
        path = args.output / f"{i:05d}.jpg"
        Image.fromarray(picture(draw, args.width, args.height)).save(path, quality=args.quality)
        sizes.append(path.stat().st_size)
    print(f"{args.count} JPEGs of {args.width} x {args.height}, {np.mean(sizes) / 1000:.0f} kB each on average, in {args.output}")


if __name__ == "__main__":
    main()
