"""What this machine allows: bytes a second from DRAM, operations a second on registers alone.

Read in the same rounds as what is compared with them, since a virtual machine's limits move. DRAM is the best of 1, 2,
4 and 8 streams with and without prefetch, in huge pages; which one that is, is found once.
"""

from __future__ import annotations

import itertools
from ctypes import CDLL, c_double, c_int

WAYS = tuple(itertools.product((1, 2, 4, 8), (0, 1)))


class Limits:
    """`read` of "dram" in bytes a second, of "vnni", "amx", "fma" in operations a second; 0 where there is none."""

    def __init__(self, native: CDLL) -> None:
        self.native = native
        for name in ("limit_dram", "limit_vnni", "limit_amx", "limit_fma"):
            getattr(native, name).restype = c_double
        native.limit_dram.argtypes = (c_int, c_int, c_int)
        self.best: dict[int, tuple[int, int]] = {}

    def read(self, what: str, threads: int) -> float:
        if what != "dram":
            return max(float(getattr(self.native, f"limit_{what}")(threads)) for _ in range(4))
        if threads not in self.best:
            rates = {way: max(self._dram(way, threads) for _ in range(3)) for way in WAYS}
            self.best[threads] = max(rates, key=rates.__getitem__)
        return max(self._dram(self.best[threads], threads) for _ in range(2))

    def _dram(self, way: tuple[int, int], threads: int) -> float:
        return float(self.native.limit_dram(*way, threads))
