"""The host pipeline against the official implementation: JPEG decoding, crops, resize, crop windows, every photometric operation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from byol_jax import views
from byol_jax.data import eval_batches, fetch, folder, train_batches, vision

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))
# Both sides compute in float32 and the values are at most 1.4, so anything above a few units in the last place is a difference of method.
TOLERANCE = 2e-6
HALF_STEP = 1e-5  # outputs are stored as uint16, to half of 1/65535


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def parse(array: np.ndarray):
    return json.loads(bytes(array))


IMAGES = load("e_dataset.npz")
META = parse(IMAGES["meta_json"])
OPS = load("d_augment_ops.npz")
SPECS = parse(OPS["spec_json"])
CENTRES = [meta for meta in META if "center_window_yxhw" in meta]
WINDOWS = [meta for meta in META if "window_yxhw" in meta]


@pytest.mark.parametrize("meta", CENTRES, ids=lambda m: m["name"])
def test_evaluation_crop_from_the_jpeg_bytes(meta):
    seen = []

    def crop(height: int, width: int):
        seen.append((height, width))
        return vision.central_window(height, width, views.imagenet().eval_crop)

    pixels = fetch.decode(bytes(IMAGES[f"{meta['name']}/jpeg"]), meta["name"], crop)
    assert seen == [(meta["h"], meta["w"])]
    assert crop(*seen[0]) == tuple(meta["center_window_yxhw"])
    np.testing.assert_array_equal(pixels, IMAGES[f"{meta['name']}/center_decoded_u8"])
    out = vision.resize(pixels, 224).numpy()
    np.testing.assert_allclose(out, IMAGES[f"{meta['name']}/center_out_u16"] / 65535, atol=HALF_STEP, rtol=0)


def test_evaluation_batches_of_a_folder(tmp_path: Path):
    for meta in CENTRES:
        (tmp_path / f"{meta['name']}.jpg").write_bytes(bytes(IMAGES[f"{meta['name']}/jpeg"]))
    (batch,) = eval_batches(folder(tmp_path), views.imagenet(), batch_size=8)
    for row, meta in enumerate(CENTRES):
        wanted = IMAGES[f"{meta['name']}/center_out_u16"] / 65535 * 255
        np.testing.assert_allclose(batch["image"][row], wanted, atol=0.51, rtol=0)  # rounded to a level


@pytest.mark.parametrize("meta", WINDOWS, ids=lambda m: m["name"])
def test_window_is_cut_and_resized(meta):
    name = meta["name"].split("/")[0]
    image = fetch.decode(bytes(IMAGES[f"{name}/jpeg"]), name)
    y, x, h, w = meta["window_yxhw"]
    if f"{meta['name']}/decoded_u8" in IMAGES:
        # The official code decodes the window alone; colours at its edges are interpolated from fewer neighbours, by up to two levels.
        difference = np.abs(image[y : y + h, x : x + w].astype(int) - IMAGES[f"{meta['name']}/decoded_u8"])
        assert difference.max() <= 2
        assert not difference[:, 2:-2].any()
    out = vision.resized_crop(image, np.array([y, x, h, w], np.int32), 224).numpy()[:: meta["subsample"], :: meta["subsample"]]
    error = np.abs(out - IMAGES[f"{meta['name']}/out_u16"] / 65535)
    inside = error[:, 16:-16] if w < image.shape[1] else error
    assert inside.max() < HALF_STEP
    assert error.max() < 3 / 255


def operation(spec: dict):
    name = spec["fn"]
    if name == "adjust_brightness":
        return lambda x: vision.brightness(x, spec["delta"])
    if name == "adjust_contrast":
        return lambda x: vision.contrast(x, spec["factor"])
    if "adjust_saturation" in name:
        return lambda x: vision.saturation(x, spec["factor"])
    if "adjust_hue" in name:
        return lambda x: vision.hue(x, spec["delta"])
    if name == "_gaussian_blur_single_image":
        return lambda x: vision.blur(x, spec["sigma"], spec["radius"])
    return {
        "rgb_to_hsv": vision.tf.image.rgb_to_hsv,
        "hsv_to_rgb(rgb_to_hsv)": lambda x: vision.hue(x, 0.0),
        "_to_grayscale": vision.grayscale,
        "_solarize_single_image": lambda x: vision.solarize(x, spec["threshold"]),
        "jnp.fliplr": vision.tf.image.flip_left_right,
    }[name]


@pytest.mark.parametrize(
    "spec", [s for s in SPECS if s["fn"] not in ("dataset.normalize_images", "clip after each op")], ids=lambda s: s["name"]
)
def test_operation(spec):
    got = np.stack([operation(spec)(vision.tf.constant(image)).numpy() for image in OPS["images"]])
    np.testing.assert_allclose(got, OPS[spec["name"]], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("spec", [s for s in SPECS if "kernel_size_arg" in s], ids=lambda s: s["name"])
def test_blur_radius(spec):
    assert vision.blur_radius(round(10 * spec["kernel_size_arg"])) == spec["radius"]


@pytest.mark.parametrize("which", ["view1", "view2"])
def test_whole_chain_from_its_parameters(which):
    data = load("d2_postprocess.npz")
    view = getattr(views.imagenet(32), which)
    orders = [tuple(order) for order in vision._ORDERS]

    def uniform(value: float, low: float, high: float) -> np.float32:
        return np.float32((value - low) / (high - low))

    def draws(row: dict) -> dict[str, np.float32]:
        """The uniform numbers that lead to the parameters the official code drew."""
        u = {name: np.float32(0 if row[key] else 1 + 1e-6) for name, key in
             (("flip", "flip"), ("jitter", "jitter"), ("grayscale", "gray"), ("blur", "blur"), ("solarize", "solarize"))}  # fmt: skip
        u["brightness"] = uniform(row["brightness"], -0.4, 0.4)
        u["contrast"] = uniform(row["contrast"], 0.6, 1.4)
        u["saturation"] = uniform(row["saturation"], 0.8, 1.2)
        u["hue"] = uniform(row["hue"], -0.1, 0.1)
        u["sigma"] = uniform(row["sigma"], 0.1, 2.0)
        u["order"] = np.float32((orders.index(tuple(row["order"])) + 0.5) / 24)
        return u

    apply = vision.tf.function(lambda x, u: vision.augment(x, u, view))
    for image, row, wanted in zip(data[f"{which}_in"], parse(data["params_json"])[which], data[f"{which}_out"], strict=True):
        u = {name: vision.tf.constant(value) for name, value in draws(row).items()}
        np.testing.assert_allclose(apply(vision.tf.constant(image), u), wanted, atol=5e-6, rtol=0, err_msg=str(row))


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest gap between two empirical distribution functions."""
    points = np.union1d(a, b)
    below = [np.searchsorted(np.sort(x), points, "right") / len(x) for x in (a, b)]
    return float(np.max(np.abs(below[0] - below[1])))


@pytest.mark.parametrize("size", [(300, 400), (500, 333), (224, 224)], ids=str)
def test_crop_windows_follow_the_official_distribution(size):
    official = load("e2_crop_samples.npz")[f"win_{size[0]}x{size[1]}"]
    seeds = np.stack([np.full(16_000, 5), np.arange(16_000)], -1)
    tf = vision.tf

    @tf.function
    def sample(seeds):
        def one(seed):
            return vision.sample_window(vision.draw(seed)[0], *map(tf.constant, size), views.View())

        return tf.map_fn(one, seeds, fn_output_signature=tf.int32, parallel_iterations=1)

    ours = sample(tf.constant(seeds, tf.int64)).numpy()

    def shapes(windows: np.ndarray) -> dict[str, np.ndarray]:
        y, x, h, w = windows.astype(np.float64).T
        free_y, free_x = np.maximum(size[0] - h, 1), np.maximum(size[1] - w, 1)
        return {"y": y, "x": x, "h": h, "w": w, "area": h * w, "ratio": w / h, "down": y / free_y, "right": x / free_x}

    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= size).all()
    # Kolmogorov-Smirnov at level 0.001 for samples of 4,000 and 16,000.
    limit = 1.95 * np.sqrt(1 / len(official) + 1 / len(ours))
    theirs = shapes(official)
    for name, values in shapes(ours).items():
        assert ks_distance(values, theirs[name]) < limit, name


def test_training_crops_are_windows_of_the_image(tmp_path: Path):
    """Through the whole pipeline: a view of a folder's image is the crop that the example's own seed gives."""
    from byol_jax.data.order import example_seed

    name = CENTRES[0]["name"]
    (tmp_path / "only.jpg").write_bytes(bytes(IMAGES[f"{name}/jpeg"]))
    with train_batches(folder(tmp_path), views.imagenet(64), batch_size=1, seed=9, start_step=3) as batches:
        batch = next(batches)
    image = fetch.decode(bytes(IMAGES[f"{name}/jpeg"]), name)
    seed = example_seed(9, np.array(3), np.array(0))
    for key, u in zip(("view1", "view2"), vision.draw(seed), strict=True):
        window = vision.sample_window(u, image.shape[0], image.shape[1], views.View())
        np.testing.assert_array_equal(batch[key][0], vision.to_uint8(vision.resized_crop(image, window, 64)))
    assert (batch["view1"] != batch["view2"]).any()
