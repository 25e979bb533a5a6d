"""Pickles as data: what official checkpoints hold comes out, and hostile files are refused before anything runs."""

from __future__ import annotations

import builtins
import codecs
import collections
import copyreg
import io
import operator
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byol_jax.convert import ConvertError
from byol_jax.convert.unpickle import load

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
TRIPPED: list[Any] = []


def trip(*args: Any) -> None:
    TRIPPED.append(args)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


class Plain:
    pass


def pickled(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


ARRAYS = {
    "c": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "scalar": np.float64(0.5),
    "zero": np.zeros((0, 3), np.float32),
    "number": np.int32(7),
    "none": np.array(3, np.uint8),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_and_containers_come_out_equal(protocol: int, tmp_path: Path) -> None:
    shared = np.ones(2, np.float32)
    value = {
        **ARRAYS,
        "list": [1, -2, 1 << 40, 2.5, None, True, b"raw", "text"],
        "tuple": ((), (1,), (1, 2, 3, 4)),
        "again": [shared, shared],
    }
    value |= {"ordered": collections.OrderedDict(a=1, b=[2]), 3: {}}
    found = load(pickled(tmp_path / "f.pkl", value, protocol))
    assert found.keys() == value.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, np.shape(found[name])) == (array.dtype, np.shape(array))
        np.testing.assert_array_equal(found[name], array)
    assert (found["list"], found["tuple"], found["ordered"], found[3]) == (value["list"], value["tuple"], {"a": 1, "b": [2]}, {})
    assert found["again"][0] is found["again"][1]


@pytest.mark.parametrize("file", ["g_tiny_pretrain.pkl", "g_tiny_pretrain_legacy2020style.pkl"])
def test_official_files(file: str) -> None:
    found = load(GOLDEN / file)
    assert (found["step"], found["rng"].tolist()) == (1234, [0, 7])
    assert list(found["experiment_state"]) == ["online_params", "target_params", "online_state", "target_state", "opt_state"]
    assert [list(link) for link in found["experiment_state"]["opt_state"]] == [[], ["mu"], []]
    assert found["experiment_state"]["online_params"]["classifier"]["w"].shape == (8, 10)


def test_both_styles_hold_the_same_arrays() -> None:
    new, old = (load(GOLDEN / file)["experiment_state"] for file in ("g_tiny_pretrain.pkl", "g_tiny_pretrain_legacy2020style.pkl"))
    for field in ("online_params", "target_params", "online_state", "target_state"):
        for module, leaves in new[field].items():
            for name, array in leaves.items():
                np.testing.assert_array_equal(array, old[field][module][name])


def text(data: str) -> bytes:
    encoded = data.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


ENCODE = b"c_codecs\nencode\n"
F4 = b"cnumpy\ndtype\n" + text("f4") + b"\x89\x88\x87R"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + ENCODE + text("b") + text("latin1") + b"\x86R\x87R"


def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    return b"\x80\x02" + EMPTY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def four_bytes() -> bytes:
    return ENCODE + text("\x00\x00\x80?") + text("latin1") + b"\x86R"


HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")
GROUP: Any = getattr
HOSTILE: dict[str, tuple[Any, str]] = {
    "os.system": (Calls(os.system, "touch hacked"), r"asks for posix\.system"),
    "eval": (Calls(builtins.eval, "1/0"), r"asks for (__builtin__|builtins)\.eval"),
    "exec": (Calls(builtins.exec, "trip()"), r"asks for (__builtin__|builtins)\.exec"),
    "getattr chain": (Calls(GROUP, Calls(GROUP, "", "join"), "__self__"), r"asks for (__builtin__|builtins)\.getattr"),
    "attrgetter": (Calls(operator.attrgetter("system"), os.name), r"asks for operator\.attrgetter"),
    "own function": (Calls(trip, 1), r"asks for .*\.trip"),
    "numpy.load": (Calls(np.load, "x"), r"asks for numpy\.load"),
    "numpy.fromfile": (Calls(np.fromfile, "/dev/zero"), r"asks for numpy.*fromfile"),
    "numpy.zeros": (Calls(np.zeros, 10**12), r"asks for numpy.*zeros"),
    "instance": (Plain(), r"asks for (copy_reg|copyreg|.*Plain)"),
    "class": (Plain, r"asks for .*Plain"),
    "import": (Calls(__import__, "antigravity"), r"asks for (__builtin__|builtins)\.__import__"),
    "object array": (np.array([{}, None], object), r"dtype 'O8', which is no plain number"),
    "structured array": (np.zeros(2, [("a", "f4")]), r"dtype 'V4'"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), r"dtype 'M8'"),
    "texts": (np.array(["a"]), r"dtype 'U1'"),
    "big-endian": (np.zeros(2, ">f4"), r"structured or big-endian numbers"),
    "encoding": (Calls(codecs.encode, "print(1)", "rot13"), r"encodes a text as 'rot13'"),
    "bytes": (Calls(bytes, 10**12), r"makes bytes from something else|asks for builtins\.bytes"),
    "set": ({1, 2}, r"asks for (__builtin__|builtins)\.set"),
    "complex key": ({(1, 2): 3}, r"keys are neither texts nor numbers"),
}
RAW: dict[str, tuple[bytes, str]] = {
    "10^12 numbers": (array(HUGE + b"\x85", F4, four_bytes()), r"said to hold 1000000000000 numbers of 4 bytes, with 4 bytes"),
    "negative size": (array(b"J\xff\xff\xff\xff\x85", F4, four_bytes()), r"content is not numbers"),
    "list for bytes": (array(b"K\x01\x85", F4, b"]"), r"content is not numbers"),
    "no shape": (array(b"]", F4, four_bytes()), r"without a shape"),
    "33 axes": (array(b"(" + b"K\x01" * 33 + b"t", F4, four_bytes()), r"without a shape"),
    "another class": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85" + text("b") + b"\x87R.",
        "not a plain array",
    ),
    "called class": (b"\x80\x02cnumpy\nndarray\n" + HUGE + b"\x85\x85R.", r"calls numpy\.ndarray in a way"),
    "new of a function": (b"\x80\x02c_codecs\nencode\n)\x81.", r"calls _codecs\.encode in a way"),
    "attributes of a function": (b"\x80\x02c_codecs\nencode\n}" + text("x") + b"K\x01sb.", r"sets attributes of a _codecs\.encode"),
    "attributes of a dict": (b"\x80\x02}}" + text("x") + b"K\x01sb.", r"sets attributes of a dict"),
    "items of a text": (b"\x80\x02" + text("x") + b"K\x01K\x02s.", r"adds items to a str"),
    "persistent id": (b"\x80\x02K\x01Q.", r"instruction BINPERSID"),
    "persistent id in text": (b"\x80\x02P1\n.", r"instruction PERSID"),
    "extension code": (b"\x80\x02\x82\xf0.", r"instruction EXT1"),
    "old instance": (b"\x80\x02(S'touch hacked'\nios\nsystem\n.", r"instruction (STRING|INST)"),
    "object": (b"\x80\x02(cos\nsystem\no.", r"asks for os\.system"),
    "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"asks for os\.system"),
    "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", r"asks for numpy\.ndarray\.dumps"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.", r"cut short or damaged"),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.", r"cut short or damaged"),
    "no stop": (b"\x80\x02]", r"cut short or damaged"),
    "nothing": (b"\x80\x02.", r"unfinished object"),
    "pop of nothing": (b"\x80\x02\x85.", r"takes more than it put down"),
    "unknown memo": (b"\x80\x02h\x07.", r"cut short or damaged"),
    "unknown instruction": (b"\x80\x02\xff.", r"cut short or damaged"),
    "bomb of texts": (
        b"\x80\x02" + text("\xff" * 60_000) + b"q\x000](" + (ENCODE + b"h\x00" + text("latin1") + b"\x86R") * 5 + b"e.",
        r"instruction POP|builds more data than it holds",
    ),
    "bomb of encodings": (
        b"\x80\x02](" + text("\xff" * 60_000) + b"q\x00" + (ENCODE + b"h\x00" + text("latin1") + b"\x86R") * 5 + b"e.",
        r"builds more data than it holds",
    ),
    "jax key of a class": (b"\x80\x02cjax._src.array\n_reconstruct_array\n(cnumpy\nndarray\n)]}tR.", r"not a plain array"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_and_nothing_runs(name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value, message = HOSTILE[name]
    if name == "set" and protocol == 4:
        message = r"instruction EMPTY_SET"
    path = pickled(tmp_path / "hostile.pkl", value, protocol)
    with pytest.raises(ConvertError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert not TRIPPED
    assert [child.name for child in tmp_path.iterdir()] == ["hostile.pkl"]


@pytest.mark.parametrize("name", RAW)
def test_a_forged_pickle_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = RAW[name]
    (tmp_path / "forged.pkl").write_bytes(content)
    with pytest.raises(ConvertError, match=message):
        load(tmp_path / "forged.pkl")
    assert [child.name for child in tmp_path.iterdir()] == ["forged.pkl"]


def test_an_extension_code_that_is_registered_is_not_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension(trip.__module__, "trip", 240)
    try:
        (tmp_path / "f.pkl").write_bytes(b"\x80\x02\x82\xf0)R.")
        with pytest.raises(ConvertError, match="EXT1"):
            load(tmp_path / "f.pkl")
    finally:
        copyreg.remove_extension(trip.__module__, "trip", 240)
    assert not TRIPPED


def test_the_hostile_files_do_run_under_plain_pickle() -> None:
    """So that the tests above guard against something: plain pickle calls what the file says."""
    assert pickle.loads(pickle.dumps(Calls(operator.add, 1, 2))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x80", "is not a pickle"),
        (b"just a text\n", r"is not a pickle \(it begins with b'ju'\)"),
        (b"(lp0\nI1\na.", "is not a pickle"),  # protocol 0
        (b"PK\x03\x04", "it looks like a PyTorch file"),
    ],
)
def test_no_pickle_at_all(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConvertError, match=message):
        load(tmp_path / "file")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = (GOLDEN / "g_tiny_pretrain.pkl").read_bytes()
    path = tmp_path / "cut.pkl"
    for end in (*range(2, 300, 7), 1000, 5000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ConvertError, match=r"cut\.pkl: "):
            load(path)


def test_flipped_bytes_never_do_worse_than_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.Pickler(buffer, 2).dump({"a": np.arange(4.0), "b": [(1, "x"), collections.OrderedDict(c=2)]})
    whole, path = buffer.getvalue(), tmp_path / "f.pkl"
    refused = 0
    for at in range(len(whole)):
        for byte in (0x00, 0x2E, 0x52, 0x62, 0x63, 0x81, 0xFF):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                load(path)
            except ConvertError:
                refused += 1
    assert refused > len(whole)
