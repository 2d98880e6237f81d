"""CLIP's image towers beside torch, onnxruntime and OpenVINO, in one run: latency, pictures a second, memory, size.

    python benchmarks/towers.py [--rounds N] [--prepare]        (pip install onnx onnxscript onnxruntime openvino)

ViT-B/16 and ViT-B/32 with random ternary weights, a scale a row (all linears, embeddings of patches and tokens;
projections and positions 8 bits, as the recipe clip-q-all-e has them): the same values in everyone's file. int8 peers
are onnxruntime's own quantizers' work: dynamic, and static (QDQ, a scale a channel, calibrated on pictures of the kind
measured), which OpenVINO reads too. Every output is checked against torch's float32 first. Rounds take turns; a process
for each; medians. Files are kept in the cache (TERCET_CACHE, or ~/.cache/tercet), under bench-towers. Writes
benchmarks/results/towers.json and docs/towers-speed.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speed.tower_runtimes import SIZE, pictures
from speed.turns import Failed, Worker, median, quartiles, rounds
from tercet import artifact, families
from tercet.evaluate.machine import machine
from tercet.packing import pack, unpack
from tercet.program import Model, Weight
from tercet.sources.cache import cache_dir
from tercet.tensor import IntTensor, TernaryTensor

ROOT = Path(__file__).parent.parent
RESULT, PAGE = ROOT / "benchmarks" / "results" / "towers.json", ROOT / "docs" / "towers-speed.md"
CACHE = cache_dir() / "bench-towers"
SHAPES = {"ViT-B/16": 16, "ViT-B/32": 32}
BATCHES = (1, 8, 32)
FORMATS = ("t5", "t19")  # t5 runs as t2, which it becomes when it is opened
LEAST = 0.3  # seconds of a turn
FLOAT32, INT8 = "float32", "int8"
PEERS = {  # name: (runtime, file, kind)
    "torch float32": ("torch", "torch", FLOAT32),
    "onnxruntime float32": ("onnxruntime", "float32.onnx", FLOAT32),
    "openvino float32": ("openvino_float32", "float32.onnx", FLOAT32),
    "openvino, its own precision": ("openvino", "float32.onnx", "bfloat16 where the CPU has it"),
    "onnxruntime int8 dynamic": ("onnxruntime", "dynamic.onnx", INT8),
    "onnxruntime int8 static": ("onnxruntime", "static.onnx", INT8),
    "openvino int8": ("openvino", "static.onnx", INT8),
}
CHECKED = {FLOAT32: 1e-3, INT8: 0.2}  # most relative error against torch's float32; of ours as of int8


def config(patch: int) -> dict[str, Any]:
    """OpenAI's ViT-B as transformers describes it."""
    text = {
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
        "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2, "hidden_act": "quick_gelu",
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": SIZE, "patch_size": patch, "hidden_act": "quick_gelu",
    }  # fmt: skip
    names = {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 512}
    return {**names, "text_config": text, "vision_config": vision}


def tensor(name: str, weight: Weight, rng: np.random.Generator) -> Any:
    """Random values at which a tower's activations keep their size."""
    if weight.role == "vector":
        one = "norm.weight" in name or "norm1.weight" in name or "norm2.weight" in name
        return (rng.normal(0, 0.02, weight.shape) + one).astype(np.float32)
    if weight.role in ("linear", "embedding"):
        codes = rng.integers(-1, 2, weight.shape, np.int8)
        size = 0.02 if "token" in name else (1.5 / weight.shape[1]) ** 0.5
        return TernaryTensor(codes, rng.uniform(0.5, 1.5, (weight.shape[0], 1)).astype(np.float16) * size, None)
    values = rng.normal(0, 0.02, weight.shape).astype(np.float32)
    return pack(IntTensor.quantize(values, 8, values.shape[1]), "q8")


def prepare(patch: int) -> Path:
    """The folder of a shape's files, made where they are missing."""
    folder = CACHE / f"b{patch}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    towers, rng = families.model(config(patch)), np.random.default_rng(patch)
    made = {name: tensor(name, weight, rng) for name, weight in towers.weights.items()}
    made[towers.scale] = np.array([4.6], np.float32)
    for form in (form for form in FORMATS if not artifact.is_artifact(folder / form)):
        packed = {name: pack(t, form) if isinstance(t, TernaryTensor) else t for name, t in made.items()}
        card = {"recipe": {}, "card": "random weights", "generation": {}, "source": {}, "calibration": {}}
        artifact.save(folder / form, model=config(patch), tensors=packed, tokenizer_files={}, **card)
    export(folder, towers, made, config(patch))
    (folder / "done").touch()
    return folder


def export(folder: Path, towers: Model, made: dict[str, Any], settings: dict[str, Any]) -> None:
    """The image tower in float32 for torch and as ONNX, and that quantized."""
    import torch
    from onnxruntime import quantization
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**settings["vision_config"], projection_dim=512)).eval()
    state = tower.state_dict()
    for name in towers.image.weights:
        state[name].copy_(torch.from_numpy(floats(made[name])).reshape(state[name].shape))
    tower.save_pretrained(folder / "torch")

    class Embeddings(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.tower(pixel_values=pixels).image_embeds

    source, batch = folder / "float32.onnx", torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        Embeddings().eval(), (torch.from_numpy(pictures(2)),), str(source), dynamo=True, external_data=False,
        input_names=["pixels"], dynamic_shapes={"pixels": {0: batch}},
    )  # fmt: skip
    quantization.quantize_dynamic(source, folder / "dynamic.onnx", per_channel=True)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [pictures(2), pictures(3)]

        def get_next(self) -> dict[str, Any] | None:
            return {"pixels": self.left.pop()} if self.left else None

    types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_static(
        source,
        folder / "static.onnx",
        Reader(),
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        **types,
    )


def floats(value: Any) -> Any:
    value = value if isinstance(value, np.ndarray | TernaryTensor) else unpack(value)
    return np.asarray(value, np.float32) if isinstance(value, np.ndarray) else value.dequantize()


def measure(shape: str, count: int, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Rows of a shape: a runtime each."""
    folder, threads = prepare(SHAPES[shape]), machine()["threads"]
    participants = {f"tercet {form}": ("ours", form, "ternary, int8 activations") for form in FORMATS} | PEERS
    workers, rows = {}, {}
    for name, (runtime, file, kind) in participants.items():
        worker = Worker(sys.executable, "tower", runtime, str(folder / file), str(threads))
        try:
            loaded = worker.call("load", batch=1)
            outputs = np.array(worker.call("embeddings", batch=1))
            row = {"runtime": name, "kind": kind, "load_s": loaded, "file_mb": size(folder / file)}
            workers[name], rows[name] = worker, {"shape": shape, **row, "outputs": outputs}
        except Failed as error:
            print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
    reference = rows["torch float32"]["outputs"]
    for name, row in rows.items():
        row["error"] = float(np.abs(row.pop("outputs") - reference).max() / np.abs(reference).max())
        if row["error"] > CHECKED.get(row["kind"], CHECKED[INT8]):
            print(f"{name}: left out: its output is {row['error']:.3f} off", file=sys.stderr, flush=True)
            workers.pop(name).close()
    for batch in batches:
        for name, worker in workers.items():
            if batch > 1:
                worker.call("load", batch=batch)
            if batch == 8 or batch == max(batches):
                rows[name].setdefault("memory", worker.call("memory"))
        turns = {
            name: partial(worker.call, "time", batch=batch, least=LEAST if batch < 32 else 0.0)
            for name, worker in workers.items()
        }
        for name, seconds in rounds(turns, count if batch < 32 else max(3, count // 2)).items():
            middle = median(seconds)
            rows[name][f"batch_{batch}"] = {
                "ms": middle * 1e3, "quartiles_ms": [q * 1e3 for q in quartiles(seconds)], "pictures_s": batch / middle,
            }  # fmt: skip
    for worker in workers.values():
        worker.close()
    return [rows[name] for name in workers]


def size(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def both_towers(patch: int) -> dict[str, float]:
    """The whole model's float32 bytes over a folder's, everything counted."""
    weights = families.model(config(patch)).weights.values()
    total = 4 * sum(int(np.prod(weight.shape)) for weight in weights) / 1e6
    return {"float32_mb": total, **{form: total / size(CACHE / f"b{patch}" / form) for form in FORMATS}}


def goals(rows: list[dict[str, Any]], sizes: dict[str, Any], batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """What README promises of ViT-B/16, and what was measured; misses stay."""
    mine = [row for row in rows if row["shape"] == "ViT-B/16"]
    ours = next(row for row in mine if row["runtime"] == "tercet t5")
    found = [{"goal": "file smaller than float32, both towers, t5", "least": 17.0, "measured": sizes["ViT-B/16"]["t5"]}]
    for kind, least in ((FLOAT32, 2.5), (INT8, 1.0)):
        for batch in (b for b in batches if b < 32):
            best = min(row[f"batch_{batch}"]["ms"] for row in mine if row["kind"] == kind)
            measured = best / ours[f"batch_{batch}"]["ms"]
            found.append({"goal": f"faster than the best {kind}, batch {batch}", "least": least, "measured": measured})
    torch = next(row for row in mine if row["runtime"] == "torch float32")
    measured = torch["memory"]["resident_mb"] / ours["memory"]["resident_mb"]
    return [
        *found,
        {"goal": "memory below torch float32, weights and activations", "least": 10.0, "measured": measured},
    ]


def page(result: dict[str, Any]) -> str:
    """The result as markdown."""
    about, batches = result["machine"], result["batches"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Image towers beside torch, onnxruntime and OpenVINO",
        "",
        f"Written by `{result['command']}`: {about['cpu']}, {about['threads']} threads, {about['isa']},",
        f"{result['date']}. {versions}. {result['note']}",
        f"Medians of {result['rounds']} rounds (batch 32: half as many, 3 at least) in which all take turns; random",
        "weights, the same values for everyone;",
        "`error` is the largest against torch's float32, of its largest value. Files are of the image tower,",
        "ours of both towers. Memory is the growth since before the file was opened, up to batch 8;",
        "[the rules](../benchmarks/PROTOCOL.md).",
        "",
        "| goal (ViT-B/16) | at least | measured | |",
        "| --- | --: | --: | --- |",
    ]
    for goal in result["goals"]:
        met = "met" if goal["measured"] >= goal["least"] else "**missed**"
        lines.append(f"| {goal['goal']} | {goal['least']:g}x | {goal['measured']:.2f}x | {met} |")
    for shape in result["sizes"]:
        rows = [row for row in result["rows"] if row["shape"] == shape]
        head = " | ".join(f"batch {batch}, ms" for batch in batches)
        lines += [
            "",
            f"## {shape}",
            "",
            f"| runtime | {head} | pictures/s at {batches[-1]} | resident MB | peak MB | file MB | load s | error |",
            "| --- |" + " --: |" * (len(batches) + 6),
        ]
        for row in rows:
            times = " | ".join(f"{row[f'batch_{batch}']['ms']:.1f}" for batch in batches)
            memory = row["memory"]
            lines.append(
                f"| {row['runtime']} | {times} | {row[f'batch_{batches[-1]}']['pictures_s']:.1f} |"
                f" {memory['resident_mb']:.0f} | {memory['peak_mb']:.0f} | {row['file_mb']:.1f} | {row['load_s']:.2f} |"
                f" {row['error']:.4f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--note", default="", help="what there is to say of the machine, such as what else ran")
    parser.add_argument("--prepare", action="store_true", help="make the files, measure nothing")
    chosen = parser.parse_args()
    for shape in chosen.shapes:
        prepare(SHAPES[shape])
    if chosen.prepare:
        return
    batches = tuple(sorted(chosen.batches))
    rows = [row for shape in chosen.shapes for row in measure(shape, chosen.rounds, batches)]
    sizes = {shape: both_towers(SHAPES[shape]) for shape in chosen.shapes}
    packages = ("torch", "transformers", "onnxruntime", "openvino")
    result = {
        "command": " ".join(["python benchmarks/towers.py", *sys.argv[1:]]).split(" --note")[0],
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "rounds": chosen.rounds,
        "note": chosen.note,
        "batches": batches,
        "goals": goals(rows, sizes, batches) if "ViT-B/16" in chosen.shapes else [],
        "sizes": sizes,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
