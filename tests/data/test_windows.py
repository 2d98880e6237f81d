import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.data import spread, windows
from tercet.errors import TercetError


@given(st.integers(2, 300), st.integers(2, 40), st.integers(2, 200) | st.none())
def test_windows_are_the_text_in_order_without_overlap(length: int, context: int, tokens: int | None) -> None:
    ids = np.arange(length)
    cut = windows(ids, context, tokens)
    assert np.array_equal(cut.ravel(), ids[: cut.size])
    assert cut.shape[1] == min(context, length, tokens or context)
    limit = min(length, tokens or length)
    assert limit - cut.shape[1] < cut.size <= limit


@given(st.integers(3, 100), st.integers(3, 40))
def test_a_prefix_starts_every_window_and_takes_no_text(length: int, context: int) -> None:
    cut = windows(np.arange(length), context, prefix=[777])
    assert (cut[:, 0] == 777).all()
    assert np.array_equal(cut[:, 1:].ravel(), np.arange(cut.shape[0] * (cut.shape[1] - 1)))


@pytest.mark.parametrize(("length", "context"), [(0, 8), (1, 8), (5, 1)])
def test_nothing_to_score_is_said(length: int, context: int) -> None:
    with pytest.raises(TercetError, match="nothing to score"):
        windows(np.arange(length), context)


@given(st.integers(1, 50), st.integers(2, 9), st.integers(2, 200))
def test_spread_takes_whole_windows_from_first_to_last_part(count: int, context: int, tokens: int) -> None:
    cut = np.arange(count * context).reshape(count, context)
    taken = spread(cut, tokens)
    assert len(taken) == min(count, max(1, tokens // context))
    numbers = taken[:, 0] // context
    assert np.array_equal(taken, cut[numbers])
    gaps = np.diff([*numbers, count])
    assert numbers[0] == 0
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
