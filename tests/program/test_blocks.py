"""Where calibration stops in each family's program, and which buffers it takes for the residual stream."""

import pytest

import tiny
from tercet import families
from tercet.program.blocks import block_ops, live, residuals, stages

TRANSFORMS = {"rotate": True, "clip": 100.0}


@pytest.mark.parametrize("transforms", [{}, TRANSFORMS])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_blocks_and_stages_hold_every_operation_once(family: str, transforms: dict[str, object]) -> None:
    program = families.model({**tiny.config(family), "tercet": transforms}).text
    blocks = block_ops(program)
    assert len(blocks) == len(program.blocks)
    for ops, names in zip(blocks, program.blocks, strict=True):
        assert [op.weight for op in ops if op.kind == "linear"] == list(names)
        found = stages(ops)
        assert [op for stage in found for op in stage.before] == list(ops)
        for stage in found:
            assert len({op.inputs for op in stage.linears}) <= 1
    rest = program.ops[sum(map(len, blocks)) :]
    assert [op.kind for op in rest] == [program.ops[-2].kind, "linear"]  # the final norm and the head
    assert live(rest) == {"x"}


@pytest.mark.parametrize("transforms", [{}, TRANSFORMS])
def test_llama_stops_where_inputs_change(transforms: dict[str, object]) -> None:
    program = families.model({**tiny.config("llama"), "tercet": transforms}).text
    names = [[op.weight.split(".")[-2] for op in stage.linears] for stage in stages(block_ops(program)[1])]
    assert names == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"], []]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"o_proj": ["x"], "down_proj": ["x"]}),
        ("phi", {"dense": ["x"], "fc2": ["y", "x"]}),  # parallel: the MLP also knows what attention adds
        ("gemma3_text", {}),  # a norm stands between its matrices and the residual stream
    ],
)
@pytest.mark.parametrize("transforms", [{}, TRANSFORMS])
def test_residuals(family: str, expected: dict[str, list[str]], transforms: dict[str, object]) -> None:
    program = families.model({**tiny.config(family), "tercet": transforms}).text
    found = {}
    for index, op in enumerate(program.ops):
        if op.kind == "linear" and ".0." in op.weight and residuals(op, program.ops[index:]):
            found[op.weight.split(".")[-2]] = residuals(op, program.ops[index:])
    assert found == expected
