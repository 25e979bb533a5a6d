"""Collectives read from hand-written programs, in the spellings of the TPU, GPU and CPU compilers."""

from __future__ import annotations

import pytest

from byol_jax.plan.hlo import Collective, array_bytes, collectives, totals


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("f32[2,3]{1,0:T(2,128)S(1)}", 24),
        ("bf16[3,3,64,128]", 2 * 9 * 64 * 128),
        ("(f32[64]{0}, pred[5], /*index=2*/s8[7], u64[2])", 256 + 5 + 7 + 16),
        ("f8e4m3fn[16]", 16),
        ("s4[6]", 3),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_type(shape: str, size: int) -> None:
    assert array_bytes(shape) == size


PLAIN = """HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%region_12.15 (psum.1: f32[], psum.4: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(f32[] %psum.1, f32[] %psum.4)
}

ENTRY %main.5_spmd (param.4: f32[384,512], param.5: (f32[8], /*index=1*/f32[8])) -> f32[512,512] {
  %psum.908 = f32[2,2,64]{2,1,0:T(2,128)S(1)} all-reduce(%f.25), to_apply=%region_12.15, metadata={op_name="jit(step)/stem/psum"}
  %all-reduce.2 = (f32[3,3,64,64]{3,2,1,0:T(8,128)}, f32[64]{0:T(128)}, /*index=2*/f32[]{:T(128)}) all-reduce(%a, %b, %c), to_apply=%sum
  %x = f32[4]{0} add(%all-reduce.9, %psum.908), metadata={op_name="all-reduce(this is no collective)"}
  ROOT %all-gather.1 = bf16[8,16]{1,0} all-gather(%x), dimensions={0}
}
"""


def test_tuples_are_summed_and_names_are_kept() -> None:
    assert collectives(PLAIN) == [
        Collective("all-reduce", 2 * 2 * 64 * 4, 1, "jit(step)/stem/psum"),
        Collective("all-reduce", (3 * 3 * 64 * 64 + 64 + 1) * 4, 1, "all-reduce.2"),
        Collective("all-gather", 8 * 16 * 2, 1, "all-gather.1"),
    ]
    assert totals(collectives(PLAIN)) == {"all-reduce": (2, 1024 + 147_716), "all-gather": (1, 256)}


INTEGERS = """ENTRY main {
  %all-reduce.52 = s32[8]{0:T(128)S(1)} all-reduce(%dynamic-update-slice.2), channel_id=1, to_apply=%add.5
  %all-reduce.53 = u32[2,256]{1,0:T(2,128)S(1)} all-reduce(%bitcast.1396), channel_id=2, to_apply=%region_0.1
  %all-reduce.54 = (s32[8]{0:T(128)}, bf16[8]{0:T(128)}) all-reduce(%a, %b), channel_id=3, to_apply=%region_1.2
}
"""


def test_whole_numbers_are_told_from_others() -> None:
    assert [(one.bytes, one.whole) for one in collectives(INTEGERS)] == [(32, True), (2048, True), (48, False)]


PAIRS = """ENTRY main {
  %all-reduce-start = (f32[10]{0}, f32[6]{0}) all-reduce-start(%a, %b), to_apply=%sum
  %all-reduce-done = (f32[10]{0}, f32[6]{0}) all-reduce-done(%all-reduce-start)
  %all-gather-start = (f32[10]{0}, f32[80]{0}) all-gather-start(%c), dimensions={0}
  %all-gather-done = f32[80]{0} all-gather-done(%all-gather-start)
  %collective-permute-start = (f32[2,2]{1,0}, f32[2,2]{1,0}, u32[], u32[]) collective-permute-start(%d)
  %collective-permute-done = f32[2,2]{1,0} collective-permute-done(%collective-permute-start)
  %ag2 = ((f32[1]{0}, bf16[2]{0}), (f32[8]{0}, bf16[16]{0})) all-gather-start(%e, %f), dimensions={0}
  %rs = f32[5]{0} reduce-scatter(%g), dimensions={0}, to_apply=%sum
  %aa = (f32[3]{0}, f32[3]{0}) all-to-all(%h, %i)
}
"""


def test_start_and_done_are_one_and_count_their_result() -> None:
    assert totals(collectives(PAIRS)) == {
        "all-reduce": (1, 64),
        "all-gather": (2, 320 + 32 + 32),
        "collective-permute": (1, 16),
        "reduce-scatter": (1, 20),
        "all-to-all": (1, 24),
    }


LOOP = """%inner (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %ar = f32[4]{0} all-reduce(%x), to_apply=%sum
}

%fused (p: f32[4]) -> f32[4] {
  %ar.1 = f32[2]{0} all-reduce(%x), to_apply=%sum
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %w2 = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
  %call = f32[4]{0} fusion(%q), kind=kCustom, calls=%fused
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%cond, body=%outer
  %c = f32[4]{0} conditional(%i, %a, %b), branch_computations={%fused, %other}
}
"""


def test_what_stands_in_a_loop_runs_as_often() -> None:
    assert [(one.bytes, one.times) for one in collectives(LOOP)] == [(16, 5), (8, 2)]
    assert [(one.bytes, one.times) for one in collectives(LOOP, loop=3)] == [(16, 15), (8, 4)]


def test_a_program_without_collectives() -> None:
    assert collectives("ENTRY main {\n  ROOT %x = f32[4]{0} add(%a, %b)\n}\n") == []
