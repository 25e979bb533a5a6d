"""Every augmentation operation, the whole chain, crop windows and bicubic resize against the official implementation's numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import augment, views
from byol_jax.augment import blur, color, geometry
from byol_jax.augment import image as recipe

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))
# Both sides compute in float32 and the values are at most 1.4, so anything above a few units in the last place is a difference of method.
TOLERANCE = 2e-6
# In a sequence hue divides by a chroma that clipping has made small: there the official float32 is itself 2.2e-6 away from float64.
CHAIN_TOLERANCE = 5e-6
RESIZE_TOLERANCE = 1e-5  # the numbers are stored to half of 1/65535, which is 7.6e-6


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def parse(array: np.ndarray) -> object:
    return json.loads(bytes(array))


OPS = load("d_augment_ops.npz")
SPECS = parse(OPS["spec_json"])


def planes(images: np.ndarray) -> jnp.ndarray:
    return jnp.moveaxis(jnp.asarray(images), -1, 1)


def run(op, images: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(jax.jit(jax.vmap(op))(planes(images))), 1, -1)


def operation(spec: dict):
    name = spec["fn"]
    if name == "adjust_brightness":
        return lambda x: color.brightness(x, spec["delta"])
    if name == "adjust_contrast":
        return lambda x: color.contrast(x, spec["factor"])
    if "adjust_saturation" in name:
        return lambda x: color.hsv(x, saturation=spec["factor"])
    if "adjust_hue" in name:
        return lambda x: color.hsv(x, hue=spec["delta"])
    if name == "_gaussian_blur_single_image":
        return lambda x: blur.blur(x, *(blur.matrix(spec["sigma"], spec["radius"], length) for length in x.shape[1:]))
    fixed = {
        "hsv_to_rgb(rgb_to_hsv)": color.hsv,
        "_to_grayscale": color.grayscale,
        "_solarize_single_image": lambda x: color.solarize(x, spec["threshold"]),
        "jnp.fliplr": geometry.flip,
    }
    return fixed[name]


@pytest.mark.parametrize(
    "spec", [s for s in SPECS if s["fn"] not in ("rgb_to_hsv", "dataset.normalize_images", "clip after each op")], ids=lambda s: s["name"]
)
def test_operation(spec):
    got = run(operation(spec), OPS["images"])
    np.testing.assert_allclose(got, OPS[spec["name"]], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("spec", [s for s in SPECS if "adjust_saturation" in s["fn"]], ids=lambda s: s["name"])
def test_saturation_without_hue(spec):
    got = run(lambda x: color.saturate(x, spec["factor"]), OPS["images"])
    np.testing.assert_allclose(got, OPS[spec["name"]], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("spec", [s for s in SPECS if "taps" in s], ids=lambda s: s["name"])
def test_blur_kernel(spec):
    assert blur.radius(round(10 * spec["kernel_size_arg"])) == spec["radius"]
    expected = OPS[spec["name"].replace("blur_", "blurkernel_")]
    half, length = spec["radius"], 2 * spec["radius"] + 5
    assert len(expected) == spec["taps"] == 2 * half + 1
    row = np.asarray(jax.jit(blur.matrix, static_argnums=(1, 2))(spec["sigma"], half, length))[
        half + 2
    ]  # the middle one: the whole kernel, with two zeros on each side
    np.testing.assert_allclose(row, np.pad(expected, 2), atol=1e-7, rtol=0)


def test_normalisation():
    got = jax.vmap(lambda x: recipe.normalize(x, views.imagenet()))(planes(OPS["images"]))
    np.testing.assert_allclose(got, OPS["normalized"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", [s["name"] for s in SPECS if s["fn"] == "clip after each op"])
def test_four_jitters_in_sequence(name):
    delta, factor, saturation, hue = (float(part[1:]) for part in name.split("_")[1:5])  # such as seq_b.4_c1.4_s1.2_h.1_clip
    times = jnp.array([0.1, 0.2, 0.3, 0.4])
    got = run(lambda x: color.jitter(x, times, delta=delta, factor=factor, saturation=saturation, hue=hue), OPS["images"])
    np.testing.assert_allclose(got, OPS[name], atol=CHAIN_TOLERANCE, rtol=0)


@pytest.mark.parametrize("which", ["view1", "view2"])
def test_whole_chain_from_its_parameters(which):
    data = load("d2_postprocess.npz")
    rows = parse(data["params_json"])[which]
    names = {"grayscale": "gray"}
    fields = [f for f in recipe.Draws._fields if f not in ("rotation", "times")]
    columns = {f: jnp.array([row[names.get(f, f)] for row in rows]) for f in fields}
    # An operation's time is its place in the order that the official code drew.
    times = jnp.array([[row["order"].index(op) for op in range(4)] for row in rows], jnp.float32)
    draws = recipe.Draws(rotation=jnp.zeros(len(rows)), times=times, **columns)
    view = getattr(views.imagenet(32), which)
    got = jax.jit(jax.vmap(lambda x, d: recipe.apply(x, d, view)))(planes(data[f"{which}_in"]), draws)
    np.testing.assert_allclose(np.moveaxis(np.asarray(got), 1, -1), data[f"{which}_out"], atol=CHAIN_TOLERANCE, rtol=0)


def crops() -> list[dict]:
    """Each golden window with its decoded pixels: (pixels, window in them, expected uint16, step between the stored pixels)."""
    data = load("e_dataset.npz")
    found = []
    for meta in parse(data["meta_json"]):
        key = f"{meta['name']}/decoded_u8" if "window_yxhw" in meta else f"{meta['name']}/center_decoded_u8"
        if key in data:
            out = data[key.replace("decoded_u8", "out_u16")]
            found.append({"name": meta["name"], "pixels": data[key], "out": out, "step": meta.get("subsample", 1)})
    return found


@pytest.mark.parametrize("crop", crops(), ids=lambda c: c["name"])
def test_bicubic_resize(crop):
    pixels = crop["pixels"]
    # The window lies inside a larger image of random pixels: nothing outside it may leak in.
    height, width, _ = pixels.shape
    image = np.random.default_rng(0).integers(0, 256, (height + 9, width + 6, 3), dtype=np.uint8)
    image[4 : 4 + height, 5 : 5 + width] = pixels
    window = jnp.array([4, 5, height, width], jnp.int32)
    got = np.asarray(jax.jit(geometry.resized_crop, static_argnums=2)(image, window, 224))[:: crop["step"], :: crop["step"]]
    np.testing.assert_allclose(got, crop["out"] / 65535, atol=RESIZE_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "meta", [m for m in parse(load("e_dataset.npz")["meta_json"]) if "center_window_yxhw" in m], ids=lambda m: m["name"]
)
def test_central_window(meta):
    assert geometry.central_window(meta["h"], meta["w"], views.imagenet().eval_crop) == tuple(meta["center_window_yxhw"])


@pytest.mark.parametrize("name", [m["name"] for m in parse(load("e_dataset.npz")["meta_json"]) if "center_window_yxhw" in m])
def test_preprocess_is_the_official_evaluation(name):
    data = load("e_dataset.npz")
    recipe_ = views.Views(size=224, eval_crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    got = jax.jit(augment.preprocess, static_argnums=1)(jnp.asarray(data[f"{name}/center_decoded_u8"])[None], recipe_)[0]
    np.testing.assert_allclose(got, data[f"{name}/center_out_u16"] / 65535, atol=RESIZE_TOLERANCE, rtol=0)


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest gap between two empirical distribution functions."""
    points = np.union1d(a, b)
    return float(
        np.max(np.abs(np.searchsorted(np.sort(a), points, "right") / len(a) - np.searchsorted(np.sort(b), points, "right") / len(b)))
    )


@pytest.mark.parametrize("name", [name for name in load("e2_crop_samples.npz") if name.startswith("win_")])
def test_crop_windows_follow_the_official_distribution(name):
    official = load("e2_crop_samples.npz")[name]
    size = tuple(int(side) for side in name.removeprefix("win_").split("x"))
    keys = jax.random.split(jax.random.key(7), 16_000)
    ours = np.asarray(jax.jit(jax.vmap(lambda key: geometry.sample_window(key, *size, views.View())))(keys))

    def shapes(windows: np.ndarray) -> dict[str, np.ndarray]:
        y, x, h, w = windows.astype(np.float64).T
        free_y, free_x = np.maximum(size[0] - h, 1), np.maximum(size[1] - w, 1)
        return {"y": y, "x": x, "h": h, "w": w, "area": h * w, "ratio": w / h, "down": y / free_y, "right": x / free_x}

    # Kolmogorov-Smirnov at level 0.001 for samples of 4,000 and 16,000.
    limit = 1.95 * np.sqrt(1 / len(official) + 1 / len(ours))
    theirs = shapes(official)
    for quantity, values in shapes(ours).items():
        assert ks_distance(values, theirs[quantity]) < limit, quantity
