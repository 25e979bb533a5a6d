"""scikit-learn's test digits as image files, for ``load``.

python -m experiments.serving.digits runs/data/digits_png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from byol_jax import data


def main(folder: str) -> None:
    source = data.digits("test")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(source.images):
        Image.fromarray(image).save(place / f"{i:04d}.png")
    print(f"{len(source)} images written to {place}")


if __name__ == "__main__":
    main(sys.argv[1])
