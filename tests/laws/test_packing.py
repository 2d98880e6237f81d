"""Law 2: unpack(pack(t)) == t, for every format, group size, tail and shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slow_reference as slow
import weights
from tercet.packing import invalid_codes, pack, unpack

PACKED = sorted(weights.GROUPS)


@pytest.mark.parametrize("fmt", PACKED)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_unpack_is_the_inverse_of_pack(fmt: str, data: st.DataObject) -> None:
    tensor = data.draw(weights.tensors(fmt))
    packed = pack(tensor, fmt)
    back = unpack(packed)
    assert type(back) is type(tensor)
    assert back.equals(tensor)
    assert back.dequantize().tobytes() == tensor.dequantize().tobytes()
    assert invalid_codes(packed) == 0


@pytest.mark.parametrize("fmt", PACKED)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bytes_are_those_of_the_slow_reference(fmt: str, data: st.DataObject) -> None:
    tensor = data.draw(weights.tensors(fmt))
    packed = pack(tensor, fmt)
    assert packed.codes.tobytes() == slow.pack_codes(fmt, tensor.codes.tolist(), tensor.group_size)
    assert packed.scale is not None
    assert packed.scale.tobytes() == slow.pack_scales(fmt, tensor.scale.tolist())
    if packed.shift is not None:
        assert packed.shift.tobytes() == slow.pack_scales(fmt, tensor.shift.tolist())


@pytest.mark.parametrize(("fmt", "dtype", "top"), [("f16", np.uint16, 0x7C00), ("f32", np.uint32, 0x7F800000)])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.integers(1, 40), cols=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_floats_stay_as_they_are(fmt: str, dtype: Any, top: int, rows: int, cols: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (rows, cols), dtype, endpoint=True)
    bits[(bits & dtype(top)) == top] = 0  # what is left is finite: subnormals, both zeros, the largest
    array = bits.view(fmt.replace("f16", "<f2").replace("f32", "<f4"))
    back = unpack(pack(array, fmt))
    assert isinstance(back, np.ndarray)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("fmt", PACKED)
def test_matrices_of_several_blocks(fmt: str) -> None:
    """More rows than one pass of the packer takes, with a tail."""
    tensor = weights.tensor(fmt, 2083, 1024, 128, shift=fmt[0] != "q", seed=1)
    assert unpack(pack(tensor, fmt)).equals(tensor)  # type: ignore[union-attr, arg-type]
