"""From an index to an image that decodes: TensorFlow's JPEG decoder, replacement and counting of what cannot be decoded."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np

from byol_jax.data import images
from byol_jax.data.source import LOG, BadImage, EncodedSource, Source, check_example
from byol_jax.data.vision import tf

Crop = Callable[[int, int], tuple[int, int, int, int]]
Packed = tuple[bytes, tuple[int, int]]  # a JPEG that TensorFlow decodes and (0, 0), or pixels and their (height, width), or token ids
Candidates = Iterator[tuple[int, Callable[[], tuple[Packed, int]]]]  # what may fill a slot, best first: (index, how to load it)
_END_OF_JPEG = b"\xff\xd9"
_NOTHING = (bytes(12), (2, 2))  # stands where an example was given up
_ONE_PIXEL = np.array([0, 0, 1, 1], np.int32)  # y, x, h, w


def decode(data: bytes, where: str, crop: Crop | None = None) -> np.ndarray:
    """uint8[H, W, 3] of an encoded image, or of the part of it that ``crop(height, width)`` chooses.

    JPEG goes through TensorFlow's decoder with its default settings, which the official code used (they differ from Pillow's by about a
    level), anything else and what that decoder refuses through Pillow. BadImage if neither can.
    """
    if images.is_jpeg(data):
        try:
            if crop is None:
                return tf.io.decode_jpeg(data, channels=3).numpy()
            height, width, _ = tf.io.extract_jpeg_shape(data).numpy().tolist()
            return tf.image.decode_and_crop_jpeg(data, crop(height, width), channels=3).numpy()
        except tf.errors.InvalidArgumentError:
            pass
    return cut(images.decode(data, where), crop)


def cut(image: np.ndarray, crop: Crop | None) -> np.ndarray:
    """The part of uint8[H, W, 3] that ``crop(height, width)`` chooses."""
    if crop is None:
        return image
    y, x, h, w = crop(image.shape[0], image.shape[1])
    return np.ascontiguousarray(image[y : y + h, x : x + w])


class Packer:
    """Makes of an encoded image what ``vision.decoded`` takes: the file as it is where that is certain to decode it, else its pixels.

    tf.data's graph decodes without Python and its lock, but cannot answer for one bad file of a batch. So a file is looked at when it first
    comes (about a tenth of a millisecond) and trusted from then on.
    """

    def __init__(self, n: int, crop: Crop | None) -> None:
        """``n``: number of examples; a ``crop`` is cut here."""
        self.crop, self._sound = crop, np.zeros(n, bool)

    def __call__(self, index: int, data: bytes, name: Callable[[], str]) -> Packed:
        """BadImage, with its name, if it cannot be decoded."""
        if self.crop is None and is_whole_jpeg(data):
            self._sound[index] = self._sound[index] or _begins_well(data)
            if self._sound[index]:
                return data, (0, 0)
        return pixels(decode(data, name(), self.crop))


def is_whole_jpeg(data: bytes) -> bool:
    """Whether the bytes begin and end as a JPEG file does."""
    return images.is_jpeg(data) and data.endswith(_END_OF_JPEG)


def _begins_well(data: bytes) -> bool:
    """Whether one pixel of a JPEG decodes: then its headers are good, and all of it will decode if its end is there.

    What is wrong between the two costs colours, but never the image: the decoder warns and goes on to the end.
    """
    try:
        tf.image.decode_and_crop_jpeg(data, _ONE_PIXEL, channels=3)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def pixels(image: np.ndarray) -> Packed:
    """A decoded image, packed."""
    return image.tobytes(), (image.shape[0], image.shape[1])


def neighbours(n: int, load: Callable[[int], tuple[Packed, int]]) -> Callable[[int, int], Candidates]:
    """A function of (index, epoch): the example and, should it be bad, those after it among all n, all around."""

    def find(index: int, epoch: int) -> Candidates:
        for offset in range(n):
            at = (index + offset) % n
            yield at, functools.partial(load, at)

    return find


def load_images(source: Source, crop: Crop | None) -> Callable[[int], tuple[Packed, int]]:
    """Index -> an image, packed, and its label."""
    return _from_files(source, Packer(len(source), crop)) if isinstance(source, EncodedSource) else _from_arrays(source, crop)


def _from_files(source: EncodedSource, pack: Packer) -> Callable[[int], tuple[Packed, int]]:
    def load(index: int) -> tuple[Packed, int]:
        data, label = source.encoded(index)
        return pack(index, data, functools.partial(source.describe, index)), label

    return load


def _from_arrays(source: Source, crop: Crop | None) -> Callable[[int], tuple[Packed, int]]:
    def load(index: int) -> tuple[Packed, int]:
        image, label = check_example(source[index], f"example {index}")
        return pixels(cut(image, crop)), label

    return load


class Census:
    """Counts files seen and files found undecodable, names each bad one once, and says when there are too many."""

    def __init__(self, n: int, max_bad_share: float) -> None:
        self.n, self.max_bad_share = n, max_bad_share
        self.names: list[str] = []
        self._seen, self._bad = np.zeros(n, bool), np.zeros(n, bool)
        self._count = 0
        self._lock = threading.Lock()

    def good(self, index: int) -> None:
        """Notes that a file was decoded."""
        with self._lock:
            self._see(index)

    def bad(self, index: int, error: BadImage) -> None:
        """Notes a file that was not. ValueError if there are more of them than allowed."""
        with self._lock:
            self._see(index)
            if not self._bad[index]:
                self._bad[index] = True
                self.names.append(str(error))
                LOG.warning("undecodable, left out: %s", error)
            self._check()

    def is_bad(self, index: int) -> bool:
        """Whether the file is known to be undecodable."""
        return bool(self._bad[index])

    def _see(self, index: int) -> None:
        self._count += not self._seen[index]
        self._seen[index] = True

    def _check(self) -> None:
        """Fails when the allowed share of the whole data set is exceeded for certain; or, before all is seen, beyond reasonable doubt.

        Doubt: the number among the files seen so far scatters by the square root of what is allowed; four of those and four more.
        """
        bad, expected = len(self.names), self.max_bad_share * self._count
        if bad > self.max_bad_share * self.n or bad > expected + 4 * np.sqrt(expected) + 4:
            shown = "; ".join(self.names[:5]) + ("; ..." if bad > 5 else "")
            raise ValueError(
                f"{bad} of the {self._count} files seen so far ({self.n} in all) cannot be decoded: more than max_bad_share="
                f"{self.max_bad_share:g} allows. Mend or remove them, or allow more. They are: {shown}"
            )


class Fetch:
    """What tf.data's threads call: the images of some slots. Keeps the first error, which tf.data would disguise."""

    def __init__(self, find: Callable[[int, int], Candidates], census: Census, *, replace: bool) -> None:
        """``find(index, epoch)`` gives a slot's candidates. Without ``replace`` a bad file's slot is given up: index -1."""
        self.find, self.census, self.replace = find, census, replace
        self.error: Exception | None = None
        self.stop = threading.Event()  # set: nobody wants what is still being read

    def __call__(self, index: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of slots int64[b]: what ``vision.decoded`` takes (object[b] of bytes, int32[b, 2] sizes), labels int32[b], indices int64[b]."""
        with self.remembering():
            slots = [self._first_good(*slot) for slot in zip(index.tolist(), epoch.tolist(), strict=True)]
        packed, labels, indices = zip(*slots, strict=True)
        data, sizes = zip(*packed, strict=True)
        return np.array(data, object), np.array(sizes, np.int32), np.array(labels, np.int32), np.array(indices, np.int64)

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Notes the first error raised inside."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error
            raise

    def _first_good(self, index: int, epoch: int) -> tuple[Packed, int, int]:
        if self.stop.is_set():  # nobody will see it; an error would be told by TensorFlow, in the last lines of a run that went well
            return _NOTHING, -1, -1
        for candidate, load in self.find(index, epoch):
            if not self.census.is_bad(candidate):
                try:
                    packed, label = load()
                except BadImage as error:
                    self.census.bad(candidate, error)
                else:
                    self.census.good(candidate)
                    return packed, label, index
            if not self.replace:
                return _NOTHING, -1, -1
        raise ValueError(f"no decodable image can take the place of example {index}; undecodable so far: {len(self.census.names)}")
