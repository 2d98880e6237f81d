"""Files out of packages: the wanted ones, whole; whatever else an archive tries ends in one line."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from package_files import ar, deb, link, tar
from tercet.data import packages
from tercet.data.packages import debian_members, npm_members
from tercet.errors import FormatError, ModelError

Client = Callable[[str, bytes], list[list[str]]]
DEB, TGZ = "thing_1.0_all.deb", "scope-thing-1.0.0.tgz"


def from_deb() -> dict[str, bytes]:
    return dict(debian_members("thing", "1 MB", lambda path: path.startswith("usr/share/thing/")))


def from_npm(content: bytes) -> dict[str, bytes]:
    digest = hashlib.sha256(content).hexdigest()
    return dict(npm_members("@scope/thing", "1.0.0", digest, "1 MB", lambda path: path.startswith("img/")))


def test_wanted_files_of_a_debian_package(client: Client) -> None:
    called = client(
        DEB, deb([("./usr/share/thing/a", b"one"), ("./usr/share/other", b"no"), ("./usr/share/thing/b", b"")])
    )
    assert from_deb() == {"usr/share/thing/a": b"one", "usr/share/thing/b": b""}
    assert called == [["apt-get", "download", "thing"]]


def test_wanted_files_of_an_npm_package(client: Client) -> None:
    content = gzip.compress(tar([("package/img/1.png", b"one"), ("package/index.js", b"no")]))
    called = client(TGZ, content)
    assert from_npm(content) == {"img/1.png": b"one"}
    assert called == [["npm", "pack", "--silent", "--ignore-scripts", "@scope/thing@1.0.0"]]


def test_another_npm_package_is_refused(client: Client) -> None:
    client(TGZ, gzip.compress(tar([("package/img/1.png", b"one")])))
    with pytest.raises(FormatError, match=r"scope-thing-1\.0\.0\.tgz: not the package that was expected"):
        from_npm(b"something else")


def test_a_package_put_into_the_cache_needs_no_client(client: Client, tmp_path: Path) -> None:
    called = client(DEB, b"")
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / DEB).write_bytes(deb([("./usr/share/thing/a", b"one")]))
    assert from_deb() == {"usr/share/thing/a": b"one"}
    assert called == []


HOSTILE = {
    "a name that climbs": deb([("./usr/share/thing/../../../etc/passwd", b"x")]),
    "an absolute name": deb([("/usr/share/thing/a", b"x")]),
    "a link": deb([link("./usr/share/thing/a", "/etc/passwd")]),
    "a tar cut off": ar([("data.tar.xz", lzma.compress(tar([("./usr/share/thing/a", b"x" * 9000)])[:4000]))]),
    "a stream cut off": deb([("./usr/share/thing/a", bytes(range(256)) * 100)])[:-60],
    "a stream with a flipped byte": (lambda b: b[:-40] + bytes([b[-40] ^ 255]) + b[-39:])(
        deb([("./usr/share/thing/a", bytes(range(256)) * 100)])
    ),
    "no archive at all": b"<html>404</html>",
    "an empty file": b"",
    "no data": ar([("debian-binary", b"2.0\n")]),
    "a member that claims to be huge": ar([("control.tar.xz", b"")]).replace(b"0         `", b"9999999999`"),
    "a compression nobody reads here": ar([("data.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(50))]),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_packages_end_in_one_line(client: Client, content: bytes) -> None:
    client(DEB, content)
    with pytest.raises(FormatError) as error:
        from_deb()
    assert str(error.value).startswith("thing_1.0_all.deb: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["./usr/share/thing/a", "./nobody/wants/it"])
def test_bombs_are_stopped_wherever_they_are(client: Client, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(packages, "MAX_UNPACKED", 100_000)
    client(DEB, deb([(name, bytes(1_000_000))]))
    with pytest.raises(FormatError, match="unpacks to more than 100000 bytes"):
        from_deb()


def test_one_file_may_not_be_too_large(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_MEMBER", 1000)
    client(DEB, deb([("./usr/share/thing/a", bytes(1001))]))
    with pytest.raises(FormatError, match="no plain file of sensible size"):
        from_deb()


def test_too_many_members_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_MEMBERS", 3)
    client(DEB, deb([(f"./{index}", b"") for index in range(4)]))
    with pytest.raises(FormatError, match="more than 3 members"):
        from_deb()


def test_without_the_client_the_message_says_where_a_file_may_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError) as error:
        from_deb()
    assert str(error.value).startswith("Debian's thing: there is no apt-get here")
    assert f"put thing_*.deb into {tmp_path / 'downloads'}" in str(error.value)


def test_offline_the_clients_own_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    failed = type("Done", (), {"returncode": 100, "stderr": "warning\nE: Unable to locate package thing\n\n"})
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ModelError, match="download Debian's thing: E: Unable to locate package thing;"):
        from_deb()
