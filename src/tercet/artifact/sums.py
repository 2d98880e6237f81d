"""SHA256SUMS: the checksum of every file of a packed folder but the model card, which people may go on writing.

    # A Tercet model; check it with: sha256sum -c SHA256SUMS
    1b4f0e98...  config.json
    60303ae2...  model.safetensors

The first line says that the list is ours: a source folder may have one of another kind, which is none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tercet.errors import FormatError

__all__ = ["SUMS", "parsed", "written"]

SUMS = "SHA256SUMS"
FIRST = b"# A Tercet model; check it with: sha256sum -c SHA256SUMS\n"
LINE = re.compile(rb"([0-9a-f]{64})  ([^\s/\\]+)")


def written(digests: Mapping[str, str]) -> bytes:
    """The file, of hexadecimal digests by file name."""
    return FIRST + "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def parsed(raw: bytes, where: str) -> dict[str, str]:
    """Digests by file name; none where the list is not ours. Raises FormatError where it is damaged."""
    if not raw.startswith(FIRST):
        return {}
    digests: dict[str, str] = {}
    for line in raw[len(FIRST) :].splitlines():
        found = LINE.fullmatch(line)
        name = found.group(2).decode("utf-8", "replace") if found else ""
        if not found or name in digests:
            raise FormatError(f"{where}: damaged at {line[:80]!r}; get the model again")
        digests[name] = found.group(1).decode()
    return digests
