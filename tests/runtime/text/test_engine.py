"""The engine's manners: what it refuses and how, what a generation yields, use from several threads."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

import tiny_packed
from tercet.errors import EngineError, ModelError
from tercet.packing import PackedTensor
from tercet.program import Program
from tercet.runtime import Engine, Sampling

PROGRAM, TENSORS = tiny_packed.model()
IDS = np.arange(3, 23)


@pytest.fixture
def engine() -> Engine:
    return Engine(PROGRAM, TENSORS, threads=2, context=64)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "no tokens"),
        ([300], "outside the vocabulary"),
        ([-1], "negative"),
        ([2**40], "beyond"),
        ([1.5], "integers"),
        ([[1, 2]], "flat list"),
        (range(65), "exceed the context of 64"),
    ],
)
def test_bad_ids(engine: Engine, ids: object, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine.logits(ids)
    with pytest.raises(EngineError, match=message):
        next(engine.generate(ids))


def test_a_refused_step_changes_no_sequence(engine: Engine) -> None:
    first, second = engine.new_sequence(), engine.new_sequence()
    expected = engine.logits(IDS)
    engine.step([(first, IDS[:10])])
    with pytest.raises(EngineError, match="outside the vocabulary"):
        engine.step([(first, IDS[10:]), (second, [5, 400])])
    assert (len(first), len(second)) == (10, 0)
    assert np.array_equal(engine.step([(first, IDS[10:])])[0], expected[-1])


def test_context_is_used_to_the_last_position(engine: Engine) -> None:
    sequence = engine.new_sequence()
    engine.step([(sequence, np.zeros(64, int))])
    with pytest.raises(EngineError, match="exceed"):
        engine.step([(sequence, [0])])
    assert len(list(engine.generate(np.ones(60, int)))) == 5  # the last needs no position of its own


def test_sequences_stay_with_their_engine(engine: Engine) -> None:
    other = Engine(PROGRAM, TENSORS, context=64)
    with pytest.raises(EngineError, match="another engine"):
        engine.step([(other.new_sequence(), IDS)])
    sequence = engine.new_sequence()
    with pytest.raises(EngineError, match="twice"):
        engine.step([(sequence, IDS), (sequence, IDS)])
    with pytest.raises(EngineError, match="rewind"):
        sequence.rewind(1)


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"context": 0},
        {"chunk": 0},
        {"isa": "z80"},
        {"activations": "int4"},
        {"kv": "int2"},
        {"context": 2**40},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(EngineError):
        Engine(PROGRAM, TENSORS, **options).new_sequence()


def test_missing_and_misshapen_weights() -> None:
    name = PROGRAM.linears[0]
    with pytest.raises(ModelError, match=f"{name} is missing"):
        Engine(PROGRAM, {n: t for n, t in TENSORS.items() if n != name})
    with pytest.raises(ModelError, match="has shape"):
        Engine(PROGRAM, {**TENSORS, name: np.zeros((3, 4), np.float32)})
    packed = TENSORS[name]
    assert isinstance(packed, PackedTensor)
    with pytest.raises(ModelError, match=name):
        Engine(PROGRAM, {**TENSORS, name: _with(packed, codes=packed.codes[:-1])})


def _with(packed: PackedTensor, **changes: object) -> PackedTensor:
    """A PackedTensor whose own checks are passed by, as a bug above might."""
    copy = object.__new__(PackedTensor)
    for field in dataclasses.fields(PackedTensor):
        object.__setattr__(copy, field.name, changes.get(field.name, getattr(packed, field.name)))
    return copy


def _broken(**changes: object) -> Program:
    """The program with one operation, the third, changed."""
    ops = list(PROGRAM.ops)
    ops[2] = dataclasses.replace(ops[2], **changes)
    return dataclasses.replace(PROGRAM, ops=tuple(ops))


@pytest.mark.parametrize(
    "program",
    [
        _broken(inputs=("nowhere",)),
        _broken(inputs=()),
        _broken(output="logits"),
        _broken(output="h", inputs=("h",)),
        _broken(kind="rope", rope=9, heads=4, head_dim=16),
        _broken(kind="attention", inputs=("h", "h", "h"), heads=4, kv_heads=3, head_dim=16),
        _broken(kind="nonsense"),
        dataclasses.replace(PROGRAM, ops=()),
        dataclasses.replace(PROGRAM, ops=PROGRAM.ops[:-1]),
        dataclasses.replace(PROGRAM, ops=PROGRAM.ops[1:]),
        dataclasses.replace(PROGRAM, vocab_size=299),
        dataclasses.replace(PROGRAM, widths={**PROGRAM.widths, "h": 63}),
    ],
)
def test_programs_that_do_not_fit_are_refused(program: Program) -> None:
    with pytest.raises((EngineError, ModelError)):
        Engine(program, TENSORS)


@pytest.mark.parametrize("kind", ["matrix", "scale", "norm"])
@pytest.mark.parametrize("activations", ["int8", "float32"])
def test_weights_that_are_not_finite_end_in_an_error(kind: str, activations: str) -> None:
    tensors = dict(TENSORS)
    if kind == "matrix":
        name = PROGRAM.linears[3]
        tensors[name] = np.full(PROGRAM.weights[name].shape, np.nan, np.float32)
    elif kind == "scale":
        name = PROGRAM.linears[3]
        packed = tensors[name]
        tensors[name] = _with(packed, scale=np.full_like(packed.scale, np.inf))
    else:
        name = next(n for n, w in PROGRAM.weights.items() if w.role == "vector")
        tensors[name] = np.full(PROGRAM.weights[name].shape, np.nan, np.float32)
    with pytest.raises((EngineError, ModelError), match="finite"):
        Engine(PROGRAM, tensors, activations=activations).logits(IDS)


def test_greedy_generation_is_the_argmax_each_time(engine: Engine) -> None:
    got = list(engine.generate(IDS, Sampling(max_tokens=12)))
    text = IDS.tolist()
    for token in got:
        assert token == int(engine.logits(text)[-1].argmax())
        text.append(token)
    assert len(got) == 12


def test_generation_ends_before_a_stop_id(engine: Engine) -> None:
    free = list(engine.generate(IDS, Sampling(temperature=1.5, seed=3, max_tokens=20)))
    stop = free[7]
    ended = list(engine.generate(IDS, Sampling(temperature=1.5, seed=3, max_tokens=20), {stop}))
    assert ended == free[: free.index(stop)]
    assert list(engine.generate(IDS, Sampling(max_tokens=0))) == []


def test_a_kept_sequence_changes_nothing_but_the_work(engine: Engine) -> None:
    sequence = engine.new_sequence()
    first = list(engine.generate(IDS, Sampling(max_tokens=5), sequence=sequence))
    longer = [*IDS.tolist(), *first, 7, 8]
    again = list(engine.generate(longer, Sampling(max_tokens=5), sequence=sequence))
    assert again == list(engine.generate(longer, Sampling(max_tokens=5)))
    edited = [*IDS.tolist()[:6], 9, 9]
    assert list(engine.generate(edited, Sampling(max_tokens=5), sequence=sequence)) == list(
        engine.generate(edited, Sampling(max_tokens=5))
    )


def test_cache_memory_is_what_was_written(engine: Engine) -> None:
    position = 2 * 2 * 2 * 16 * 2  # keys and values, layers, KV heads, head size, bytes
    assert engine.kv_bytes == 0
    sequence = engine.new_sequence()
    engine.step([(sequence, [1])])
    assert sequence.kv_bytes == engine.kv_bytes == 64 * position
    fork = sequence.fork()
    assert engine.kv_bytes == 128 * position
    del fork, sequence
    assert engine.kv_bytes == 0


def test_an_int8_cache_takes_a_byte_a_value_and_two_scales_a_head() -> None:
    engine = Engine(PROGRAM, TENSORS, kv="int8", context=64)
    sequence = engine.new_sequence()
    engine.step([(sequence, [1])])
    assert sequence.kv_bytes == 64 * 2 * 2 * (2 * 16 + 2 * 4)  # layers, KV heads; key and value of 16, a float32 each


def test_several_threads_share_an_engine(engine: Engine) -> None:
    texts = [np.roll(np.arange(100, 160), i) for i in range(6)]
    expected = [engine.logits(text) for text in texts]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        for _ in range(4):
            got[i] = engine.logits(texts[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(got[i], expected[i]) for i in range(6))


def test_logits_of_a_step_stay_what_they_were(engine: Engine) -> None:
    logits = engine.step([(engine.new_sequence(), IDS)])
    before = logits.copy()
    list(engine.generate(IDS, Sampling(max_tokens=5)))
    engine.step([(engine.new_sequence(), IDS[::-1])])
    assert np.array_equal(logits, before)


def test_two_steps_at_once_do_not_share_the_logits_kept(engine: Engine) -> None:
    list(engine.generate(IDS, Sampling(max_tokens=2)))
    first, second = engine.stepper.lend(1), engine.stepper.lend(1)
    assert not np.shares_memory(first, second)
