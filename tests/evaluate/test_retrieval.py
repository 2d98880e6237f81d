"""Ranks against brute force, and against what can be counted by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.evaluate.retrieval import Captions, caption_table, ranks


@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=9),
    words=st.integers(1, 12),
    coarse=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_recall_is_that_of_sorting_everything(seed: int, counts: list[int], words: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    given_ = [[f"text {rng.integers(words)}" for _ in range(count)] for count in counts]
    captions = Captions(given_)
    pictures = rng.standard_normal((len(counts), 5)).astype(np.float32)
    texts = rng.standard_normal((len(captions.texts), 5)).astype(np.float32)
    if coarse:  # many equal scores
        pictures, texts = np.sign(pictures), np.sign(texts)
    to_picture, to_text = caption_table(pictures, texts, captions)
    for k in (1, 2, 5):
        hits = []
        for owner, own in enumerate(given_):
            for text in own:
                vector = texts[captions.texts.index(text)]
                order = sorted(range(len(counts)), key=lambda i: (-float(pictures[i] @ vector), i))[:k]
                hits.append(any(text in given_[i] for i in order))
                assert captions.owners[len(hits) - 1] == owner
        np.testing.assert_array_equal(to_picture < k, hits)
        for picture, own in enumerate(given_):
            scores = texts @ pictures[picture]
            order = sorted(range(len(texts)), key=lambda i: (-float(scores[i]), i))[:k]
            assert (to_text[picture] < k) == any(captions.texts[i] in own for i in order)


def test_captions_of_the_same_words_are_one_text_and_right_for_both_pictures() -> None:
    captions = Captions([["a dog", "a  dog "], ["a dog", "a cat"]])
    assert captions.texts == ["a dog", "a cat"]
    assert captions.of_picture == [[0], [0, 1]]
    assert captions.queries.tolist() == [0, 0, 0, 1]
    assert captions.owners.tolist() == [0, 0, 1, 1]
    pictures = np.eye(2, dtype=np.float32)
    texts = np.float32([[0.2, 0.9], [1.0, 0.3]])  # "a dog" is nearest to the second picture, "a cat" to the first
    to_picture, to_text = caption_table(pictures, texts, captions)
    assert to_picture.tolist() == [0, 0, 0, 1]
    assert to_text.tolist() == [1, 0]


def test_more_queries_than_a_chunk() -> None:
    vectors = np.random.default_rng(0).standard_normal((1300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (ranks(vectors, vectors, [[i] for i in range(1300)]) == 0).all()
