"""Rules that give a weight matrix three values (or two): one file each, one table of names.

`AnyQuantizer`, the union of their config classes by `name`, is the registry: a new quantizer is a file and a line here.
`quantize_` makes modules of a model see quantized weights; `freeze` reads the ternary tensors off it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tercet.quantizers.absmean import AbsMean, AbsMeanConfig
from tercet.quantizers.absmean2 import AbsMean2, AbsMean2Config
from tercet.quantizers.base import Quantizer, QuantizerConfig
from tercet.quantizers.binary import Binary, BinaryConfig
from tercet.quantizers.catq import CatQ, CatQConfig
from tercet.quantizers.crulis import Crulis, CrulisConfig
from tercet.quantizers.dlt import Dlt, DltConfig
from tercet.quantizers.itf import Itf, ItfConfig
from tercet.quantizers.kmeans import KMeans, KMeansConfig, kmeans_history
from tercet.quantizers.l2 import L2, L2Config
from tercet.quantizers.learned import Learned, LearnedConfig
from tercet.quantizers.levels import Levels, round_to_levels
from tercet.quantizers.lrqat import LrQat, LrQatConfig, recomputed
from tercet.quantizers.model import freeze, quantize_, quantized
from tercet.quantizers.seq import Seq, SeqConfig
from tercet.quantizers.twn import Twn, TwnConfig

__all__ = [
    "L2",
    "AbsMean",
    "AbsMean2",
    "AbsMean2Config",
    "AbsMeanConfig",
    "AnyQuantizer",
    "Binary",
    "BinaryConfig",
    "CatQ",
    "CatQConfig",
    "Crulis",
    "CrulisConfig",
    "Dlt",
    "DltConfig",
    "Itf",
    "ItfConfig",
    "KMeans",
    "KMeansConfig",
    "L2Config",
    "Learned",
    "LearnedConfig",
    "Levels",
    "LrQat",
    "LrQatConfig",
    "Quantizer",
    "QuantizerConfig",
    "Seq",
    "SeqConfig",
    "Twn",
    "TwnConfig",
    "freeze",
    "kmeans_history",
    "quantize_",
    "quantized",
    "recomputed",
    "round_to_levels",
]

AnyQuantizer = Annotated[
    AbsMeanConfig
    | AbsMean2Config
    | BinaryConfig
    | CatQConfig
    | CrulisConfig
    | DltConfig
    | ItfConfig
    | KMeansConfig
    | L2Config
    | LearnedConfig
    | LrQatConfig
    | SeqConfig
    | TwnConfig,
    Field(discriminator="name"),
]
