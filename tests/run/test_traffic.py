"""Bytes between a TPU's memory and its cores, of a program's text."""

from types import SimpleNamespace

import pytest

from ofa_jax.run import roofline, traffic

# As the TPU compiler writes it, shortened: x stays in memory, y is brought to the chip in two
# halves, z is made there, and the sum is written to memory.
PROGRAM = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(bf16[8,128]{1,0:T(8,128)(2,1)})}

%fused_computation (p: bf16[8,128]) -> bf16[8,128] {
  ROOT %n = bf16[8,128]{1,0:T(8,128)(2,1)} negate(%p)
}

ENTRY %main.1 (x.1: bf16[8,128], y.1: f32[16,128]) -> (bf16[8,128], f32[]) {
  %x.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x"}
  %y.1 = f32[16,128]{1,0:T(8,128)} parameter(1)
  %slice-start.1 = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%y.1), slice={[0:8], [0:128]}
  %slice-start.2 = ((f32[16,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%y.1), slice={[8:16], [0:128]}
  %slice-done.1 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
  %slice-done.2 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start.2)
  %copy-start = (f32[8,128]{1,0:T(8,128)}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) \
copy-start(%slice-done.1)
  %copy-done = f32[8,128]{1,0:T(8,128)} copy-done(%copy-start)
  %z = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, pred[8]{0:T(512)}) fusion(%x.1, %slice-done.2), \
kind=kLoop, calls=%fused_computation, metadata={op_name="jit(f)/neg(%not.read)"}
  %get.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%z), index=0
  %sum = f32[]{:T(128)} reduce(%get.1), dimensions={0,1}
  ROOT %tuple = (bf16[8,128]{1,0:T(8,128)(2,1)}, f32[]{:T(128)}) tuple(%x.1, %sum)
}
"""


def test_what_stays_on_the_chip_is_not_counted():
    x, y, half = 2 * 8 * 128, 4 * 16 * 128, 4 * 8 * 128
    written = 8 + 4  # the predicates of %z, and the sum
    assert traffic.memory_bytes(PROGRAM) == x + y + half + written


# A switch: of its branches, the one that reads and writes more counts.
SWITCHED = """\
HloModule jit_g, is_scheduled=true

%branch_0 (p.1: (f32[8,128])) -> (f32[8,128]) {
  %p.1 = (f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %passed = (f32[8,128]{1,0:T(8,128)}) tuple(%p.1)
}

%branch_1 (p.2: (f32[8,128])) -> (f32[8,128]) {
  %p.2 = (f32[8,128]{1,0:T(8,128)}) parameter(0)
  %got = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p.2), index=0
  %twice = f32[8,128]{1,0:T(8,128)} add(%got, %got)
  ROOT %given = (f32[8,128]{1,0:T(8,128)}) tuple(%twice)
}

ENTRY %main (i.1: s32[], /*index=1*/x.1: f32[8,128]) -> f32[8,128] {
  %i.1 = s32[]{:T(128)} parameter(0)
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %in = (f32[8,128]{1,0:T(8,128)}) tuple(%x.1)
  %out = (f32[8,128]{1,0:T(8,128)}) conditional(%i.1, %in, %in), \
branch_computations={%branch_0, %branch_1}, metadata={op_name="jit(g)/cond"}
  %y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%out), index=0
  ROOT %z = f32[8,128]{1,0:T(8,128)} negate(%y)
}
"""


def test_a_switch_counts_as_its_costliest_branch():
    array = 4 * 8 * 128
    assert traffic.memory_bytes(SWITCHED) == 3 * array + 2 * array  # the branch, then %z
    assert traffic.memory_bytes(SWITCHED, of=min) == 2 * array
    of_two = SWITCHED.replace(
        "branch_computations={%branch_0, %branch_1}",
        "true_computation=%branch_1, false_computation=%branch_0",
    )
    assert traffic.memory_bytes(of_two) == 5 * array


@pytest.mark.parametrize(("text", "moved"), [(PROGRAM, 14348.0), ("ENTRY main {\n}", 77.0)])
def test_a_tpu_program_is_read_and_others_are_as_their_compiler_counts(text, moved):
    compiled = SimpleNamespace(
        as_text=lambda: text, cost_analysis=lambda: {"flops": 5.0, "bytes accessed": 77.0}
    )
    assert roofline.cost_of(compiled) == roofline.Cost(5.0, moved)
