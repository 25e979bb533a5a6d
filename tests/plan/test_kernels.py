"""Bytes of kernels, counted by hand in programs as XLA writes them for a GPU."""

from __future__ import annotations

from byol_jax.plan.kernels import moved

ONCE = """HloModule jit_step

%fused_add (param_0: f32[4,8], param_1: f32[8]) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  %param_1 = f32[8]{0} parameter(1)
  %broadcast.1 = f32[4,8]{1,0} broadcast(%param_1), dimensions={1}
  ROOT %add.1 = f32[4,8]{1,0} add(%param_0, %broadcast.1)
}

ENTRY %main.5 (x.1: f32[4,8], b.1: f32[8], k.1: bf16[8,16]) -> (f32[4,8], bf16[4,16]) {
  %x.1 = f32[4,8]{1,0} parameter(0), metadata={op_name="x"}
  %b.1 = f32[8]{0} parameter(1)
  %k.1 = bf16[8,16]{1,0} parameter(2)
  %loop_add_fusion = f32[4,8]{1,0} fusion(%x.1, %b.1), kind=kLoop, calls=%fused_add, metadata={op_name="jit(step)/add"}
  %bitcast.3 = f32[32]{0} bitcast(%loop_add_fusion)
  %cublas-gemm.1 = (bf16[4,16]{1,0}, s8[1024]{0}) custom-call(%loop_add_fusion, %k.1), custom_call_target="__cublas$gemm"
  %get-tuple-element.1 = bf16[4,16]{1,0} get-tuple-element(%cublas-gemm.1), index=0
  %all-reduce-start.1 = f32[32]{0} all-reduce-start(%bitcast.3), to_apply=%sum
  %all-reduce-done.1 = f32[32]{0} all-reduce-done(%all-reduce-start.1)
  ROOT %tuple.1 = (f32[4,8]{1,0}, bf16[4,16]{1,0}) tuple(%loop_add_fusion, %get-tuple-element.1)
}
"""


def test_operands_and_results_of_what_is_started() -> None:
    """A fusion's own instructions are none, its shared operand is read once, and a product's scratch counts as a result."""
    fusion, product, message = (128 + 32) + 128, (128 + 256) + (128 + 1024), 128 + 128
    assert moved(ONCE) == fusion + product + message


LOOP = """HloModule jit_loop

%body (arg: (s32[], f32[10])) -> (s32[], f32[10]) {
  %arg = (s32[], f32[10]{0}) parameter(0)
  %get-tuple-element.1 = f32[10]{0} get-tuple-element(%arg), index=1
  %wrapped = f32[10]{0} fusion(%get-tuple-element.1), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (s32[], f32[10]{0}) tuple(%i, %wrapped)
}

%small (arg: f32[10]) -> f32[1] {
  %arg = f32[10]{0} parameter(0)
  ROOT %slice.1 = f32[1]{0} slice(%arg), slice={[0:1]}
}

%large (arg: f32[10]) -> f32[1] {
  %arg = f32[10]{0} parameter(0)
  %copy.1 = f32[10]{0} copy(%arg)
  ROOT %slice.1 = f32[1]{0} slice(%copy.1), slice={[0:1]}
}

ENTRY %main (x: (s32[], f32[10]), p: pred[]) -> f32[1] {
  %x = (s32[], f32[10]{0}) parameter(0)
  %p = pred[] parameter(1)
  %while.1 = (s32[], f32[10]{0}) while(%x), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %get-tuple-element.2 = f32[10]{0} get-tuple-element(%while.1), index=1
  ROOT %conditional.1 = f32[1]{0} conditional(%p, %get-tuple-element.2, %get-tuple-element.2), branch_computations={%small, %large}
}
"""


def test_loops_turn_and_of_branches_the_largest_counts() -> None:
    assert moved(LOOP) == 3 * (40 + 40) + (40 + 40) + (40 + 4)
