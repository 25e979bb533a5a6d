"""Folders of images: every format, sorted order, classes, and what is wrong with a folder."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_jax.data import BadImage, eval_batches, fetch, folder, images, labels_of, subset, train_batches
from byol_jax.data.files import folder_classes
from byol_jax.data.source import EncodedSource
from byol_jax.views import Views

RED = (200, 40, 90)


def save(image: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def plain(color=RED, size=(12, 10)) -> Image.Image:
    return Image.new("RGB", size, color)


def wide() -> Image.Image:
    """16-bit gray: 0x8000 everywhere, 0xFFFF in the last row."""
    values = np.full((10, 12), 0x8000, np.uint16)
    values[-1] = 0xFFFF
    return Image.fromarray(values)


def palette(transparent: bool) -> tuple[Image.Image, dict]:
    image = plain().convert("P", palette=Image.Palette.ADAPTIVE)
    return image, ({"transparency": image.getpixel((0, 0))} if transparent else {})


FORMATS = {
    "rgb.png": (lambda: (plain(), {}), RED, 0),
    "gray.png": (lambda: (Image.new("L", (12, 10), 77), {}), (77, 77, 77), 0),
    "gray_alpha.png": (lambda: (Image.new("LA", (12, 10), (77, 255)), {}), (77, 77, 77), 0),
    "binary.png": (lambda: (Image.new("1", (12, 10), 1), {}), (255, 255, 255), 0),
    "palette.png": (lambda: palette(False), RED, 0),
    "palette_transparent.png": (lambda: palette(True), (255, 255, 255), 0),
    "opaque.png": (lambda: (Image.new("RGBA", (12, 10), (*RED, 255)), {}), RED, 0),
    "clear.png": (lambda: (Image.new("RGBA", (12, 10), (*RED, 0)), {}), (255, 255, 255), 0),
    "half.png": (lambda: (Image.new("RGBA", (12, 10), (0, 0, 0, 51)), {}), (204, 204, 204), 1),
    "sixteen.png": (lambda: (wide(), {}), (128, 128, 128), 0),
    "rgb.jpg": (lambda: (plain(), {"quality": 95}), RED, 3),
    "gray.jpeg": (lambda: (Image.new("L", (12, 10), 77), {"quality": 95}), (77, 77, 77), 2),
    "progressive.JPG": (lambda: (plain(), {"quality": 95, "progressive": True, "format": "JPEG"}), RED, 3),
    "cmyk.jpg": (lambda: (plain().convert("CMYK"), {"quality": 95}), RED, 6),
    "rgb.webp": (lambda: (plain(), {"lossless": True}), RED, 0),
    "alpha.webp": (lambda: (Image.new("RGBA", (12, 10), (*RED, 0)), {"lossless": True}), (255, 255, 255), 0),
    "rgb.bmp": (lambda: (plain(), {}), RED, 0),
    "palette.bmp": (lambda: palette(False), RED, 0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(tmp_path: Path, name):
    make, wanted, tolerance = FORMATS[name]
    image, options = make()
    save(image, tmp_path / name, **options)
    source = folder(tmp_path)
    for decoded in (source[0]["image"], fetch.decode(source.encoded(0)[0], name)):
        assert (decoded.shape, decoded.dtype) == ((10, 12, 3), np.uint8)
        error = np.abs(decoded[:-1].astype(int) - wanted)
        assert error.max() <= tolerance, decoded[0, 0]
    if name == "sixteen.png":
        assert (source[0]["image"][-1] == 255).all()


def test_every_format_goes_through_both_pipelines(tmp_path: Path):
    for name, (make, _, _) in FORMATS.items():
        image, options = make()
        save(image, tmp_path / name, **options)
    source, views = folder(tmp_path), Views(size=8, eval_crop=1.0)
    assert source.paths == sorted(FORMATS)
    (batch,) = eval_batches(source, views, batch_size=32)
    for row, name in enumerate(source.paths):
        _, wanted, tolerance = FORMATS[name]
        error = np.abs(batch["image"][row, :-2].astype(int) - wanted)
        assert error.max() <= tolerance, name
    with train_batches(source, views, batch_size=len(FORMATS), seed=0, max_bad_share=0) as batches:
        batch = next(batches)
        assert batch["view1"].shape == (len(FORMATS), 8, 8, 3)  # the views are larger than the images are after a crop: upscaled
        assert not batches.bad_files


def test_classes_sorted_at_any_depth(tmp_path: Path):
    for name in ("dog/b.png", "dog/a.PNG", "cat/deep/er/x.jpg", "cat/a.png", "cat/notes.txt", ".hidden/a.png", "cat/.a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened here")
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    source = folder(str(tmp_path))
    assert source.paths == ["cat/a.png", "cat/deep/er/x.jpg", "dog/a.PNG", "dog/b.png"]
    assert labels_of(source).tolist() == [0, 0, 1, 1]
    assert source.class_names == ["cat", "dog"]
    assert source.describe(3) == str(tmp_path / "dog/b.png")
    assert isinstance(source, EncodedSource)
    part = subset(source, [2, 0])
    assert (part.paths, part.labels.tolist(), part.class_names) == (["dog/a.PNG", "cat/a.png"], [1, 0], ["cat", "dog"])


def test_one_class_only_is_a_class(tmp_path: Path):
    save(plain(), tmp_path / "only" / "a.png")
    assert folder(tmp_path).labels.tolist() == [0]


def test_classes_as_another_folder_numbers_them(tmp_path: Path):
    for name in ("dog", "owl"):
        save(plain(), tmp_path / name / "a.png")
    source = folder(tmp_path, class_names=["owl", "cat", "dog"])
    (tmp_path / "empty").mkdir()
    assert folder_classes(tmp_path) == folder(tmp_path).class_names == ["dog", "owl"]
    assert folder_classes(tmp_path / "dog") is folder(tmp_path / "dog").class_names is None
    assert (source.paths, source.labels.tolist()) == (["dog/a.png", "owl/a.png"], [2, 0])
    assert (source.labels.dtype, source.class_names) == (np.int32, ["owl", "cat", "dog"])
    with pytest.raises(ValueError) as caught:
        folder(tmp_path, class_names=["cat", "dog", "owls"])
    assert str(caught.value) == f"folder: class 'owl' in {tmp_path} must be one of cat, dog, owls; did you mean 'owls'?"


def test_flat_is_unlabelled(tmp_path: Path):
    save(plain(), tmp_path / "b.png")
    save(plain((1, 2, 3)), tmp_path / "a.png")
    source = folder(tmp_path)
    assert (source.paths, source.labels, source.class_names) == (["a.png", "b.png"], None, None)
    assert source[0]["label"] == -1
    assert source[0]["image"][0, 0].tolist() == [1, 2, 3]


def test_images_beside_classes_are_left_out_with_a_warning(tmp_path: Path, caplog):
    save(plain(), tmp_path / "cat" / "a.png")
    save(plain(), tmp_path / "stray.png")
    with caplog.at_level(logging.WARNING, "byol_jax.data"):
        assert len(folder(tmp_path)) == 1
    assert "the 1 images beside them are left out (first: stray.png)" in caplog.text


def test_wrong_paths(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"photo does not exist; did you mean 'photos'\?"):
        folder(tmp_path / "photo")
    with pytest.raises(ValueError, match=r"does not exist \(nor does .*nowhere\)"):
        folder(tmp_path / "nowhere" / "photo")
    with pytest.raises(ValueError, match=r"photos holds no image; suffixes looked for: \.bmp, .*; it holds nothing"):
        folder(tmp_path / "photos")
    (tmp_path / "photos" / "a.tiff").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"it holds a\.tiff"):
        folder(tmp_path / "photos")
    with pytest.raises(ValueError, match=r"a\.tiff is a file; pass the folder"):
        folder(tmp_path / "photos" / "a.tiff")


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"GIF", jpeg_bytes()[:-400], jpeg_bytes()[:300], jpeg_bytes()[:20], b"\x89PNG\r\n\x1a\n" + bytes(30)], ids=len
)
def test_damaged_bytes_are_a_bad_image(tmp_path: Path, data):
    (tmp_path / "x.jpg").write_bytes(data)
    source = folder(tmp_path)
    with pytest.raises(BadImage, match=r"x\.jpg: "):
        source[0]
    if data:
        with pytest.raises(BadImage, match=r"x\.jpg: cannot be decoded"):
            fetch.decode(data, source.describe(0))


def test_a_file_that_went_away_is_a_bad_image(tmp_path: Path):
    path = save(plain(), tmp_path / "x.png")
    source = folder(tmp_path)
    path.unlink()
    with pytest.raises(BadImage, match=r"x\.png: cannot be read \(.*No such file"):
        source[0]


def test_decoders_agree_on_a_photograph():
    smooth = np.add.outer(np.arange(64), 2 * np.arange(48))[..., None] + np.array([0, 20, 40])
    buffer = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    ours, pillow = fetch.decode(buffer.getvalue(), "x"), images.decode(buffer.getvalue(), "x")
    assert np.abs(ours.astype(int) - pillow).mean() < 2
