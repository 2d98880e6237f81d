"""A text as people save it, or pipe it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tercet.data.texts import choose, refuse_unreadable
from tercet.errors import TercetError


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfa text")
    assert choose(tmp_path / "bom.txt", "test").content == "a text"


def test_a_pipe_is_read_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"what the shell gives"))
    writer.start()
    refuse_unreadable(pipe)
    assert choose(pipe, "train").content == choose(str(pipe), "train").content == "what the shell gives"
    writer.join()


@pytest.mark.parametrize(
    ("name", "message"),
    [("/dev/zero", "a folder or a device"), (".", "a folder or a device"), ("nowhere.txt", "cannot be read"),
     ("a\0b.txt", "no name a file can have"), ("\ud800.txt", "no name a file can have")],
)  # fmt: skip
def test_what_is_no_text_file_is_one_line(name: str, message: str) -> None:
    with pytest.raises(TercetError, match=message):
        choose(name, "train")
