"""What was to be reached, and where each goal stands in a result: the numbers as they were set before the work.

A goal looks at rows by their case, threads and instruction set; it is met where every row it names is.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """`field` of every row whose case is like `cases` (and whose `where` fields match) is at least `least`.

    `most` turns it round.
    """

    text: str
    cases: tuple[str, ...]
    field: str
    bound: float
    where: tuple[tuple[str, str], ...] = ()
    most: bool = False

    def rows(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if any(fnmatch.fnmatch(row["case"], case) for case in self.cases)
                and all(fnmatch.fnmatch(str(row.get(key)), value) for key, value in self.where)]  # fmt: skip

    def reached(self, row: Row) -> bool:
        value = row[self.field]
        return bool(value <= self.bound if self.most else value >= self.bound)


VNNI = (("isa", "avx512vnni"),)
ROW, PLAIN = ("scales", "per row"), ("model", "t2, head q4")
GOALS = (
    Goal("t2 row scales, GEMV from DRAM, against TQ2_0, IQ2_BN, IQ2_BN_R4", ("gemv_t2_????x*",), "ratio", 1.8),
    Goal("the same, share of the DRAM bandwidth", ("gemv_t2_????x*",), "limit_share", 0.95),
    Goal("t19 row scales, GEMV, same peers", ("gemv_t19_*",), "ratio", 2.0),
    Goal("t2, a scale per 64 columns, GEMV", ("gemv_t2_g64_*",), "ratio", 1.6),
    Goal("t2, a scale per 64 columns, 128 tokens", ("gemm128_t2_g64_*",), "ratio", 2.0),
    Goal("t2 row scales, 8 tokens", ("gemm8_t2_????x*",), "ratio", 2.0),
    Goal("t2 row scales, 32 tokens", ("gemm32_t2_????x*",), "ratio", 2.3),
    Goal("t2 row scales, 128 tokens", ("gemm128_t2_????x*",), "ratio", 2.7),
    Goal("t2 row scales, 32 tokens, share of the VNNI peak", ("gemm32_t2_????x*",), "limit_share", 0.75, VNNI),
    Goal("t2 row scales, 128 tokens, share of the VNNI peak", ("gemm128_t2_????x*",), "limit_share", 0.80, VNNI),
    Goal("AVX2 alone, GEMV, against TQ2_0 as built here", ("gemv_t2_avx2_*",), "ratio", 1.5),
    Goal("2B model, row scales, decode", ("decode_2b",), "ratio", 1.6, (PLAIN, ROW)),
    Goal("2B model, row scales, prompt of 512", ("prefill512_2b",), "ratio", 2.4, (PLAIN, ROW)),
    Goal("SmolLM2-135M, decode, against Q4_0, Q4_0_R8, IQ2_BN", ("decode_smollm2",), "ratio", 1.6, (ROW,)),
    Goal("2B model against float16 in llama.cpp: decode", ("decode_2b_f16",), "ratio", 6),
    Goal("2B model against float16 in llama.cpp: memory", ("memory_2b_f16",), "ratio", 6),
    Goal("2B model against float16 in llama.cpp: file", ("file_2b_f16",), "ratio", 6),
    Goal("opening the 2B model, seconds", ("open_2b",), "ours", 0.2, most=True),
    Goal("resident memory of the 2B model over its file", ("resident_2b",), "ours", 1.1, most=True),
    Goal("1 to 2 threads: 1.8x, or 95 % of the 2-thread limit", ("scaling_*",), "reached", 1.0),
)  # fmt: skip


def standing(rows: list[Row]) -> list[dict[str, Any]]:
    """A line a goal: text, bound, worst and best value, whether all rows reach it; None where nothing was measured."""
    found = []
    for goal in GOALS:
        named = goal.rows(rows)
        values = sorted((float(row[goal.field]) for row in named), reverse=goal.most)
        missed = [row for row in named if not goal.reached(row)]
        found.append({
            "goal": goal.text,
            "bound": goal.bound,
            "most": goal.most,
            "worst": values[0] if values else None,
            "best": values[-1] if values else None,
            "met": not missed if named else None,
            "missed_by": [f"{row['case']}, {row['threads']} threads, {row.get('isa', '')}" for row in missed],
        })  # fmt: skip
    return found
