"""The peers, built once, natively, from the source packages on PyPI, into a cache.

    python -m speed.peers          (make bench-peers)

Only the libraries are built (target `llama`), with GGML_NATIVE=ON, so that they use all this CPU has, as they would for
anyone who builds them here; nothing is switched off that the benchmark runs. The Python bindings beside them tell the
layout of their structures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("TERCET_CACHE", Path.home() / ".cache" / "tercet")) / "peers"
COMMON = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_TESTS=OFF",
          "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF")  # fmt: skip
# Before version 13 GCC takes ldtilecfg for a reader of 8 bytes and drops the stores to the rest of the tile
# configuration, so that llama.cpp's AMX kernels crash (GCC's amxtileintrin.h). Without this they run as written.
OLD_GCC = "-fno-tree-dse -fno-dse"


@dataclass(frozen=True)
class Peer:
    """A source package on PyPI that carries a runtime.

    Attributes:
        source: the runtime's folder in the package.
        package: the Python bindings' folder.
        flags: what CMake is told beside COMMON.
    """

    name: str
    project: str
    version: str
    source: str
    package: str
    flags: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.project}-{self.version}"

    @property
    def unpacked(self) -> Path:
        return self.folder / f"{self.project.replace('-', '_')}-{self.version}"

    @property
    def libraries(self) -> Path:
        """Where libllama.so and the libggml*.so are: where they were sent, or where llama.cpp insists to put them."""
        sent = self.folder / "lib"
        return sent if (sent / "libllama.so").exists() else self.folder / "build" / "bin"

    def about(self) -> dict[str, Any] | None:
        """Version, flags and compiler of a finished build, or None."""
        place = self.folder / "built.json"
        return json.loads(place.read_text(encoding="utf-8")) if place.exists() else None


LLAMA = Peer(
    "llama.cpp", "llama-cpp-python", "0.3.36", "vendor/llama.cpp", "llama_cpp",
    ("-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_CURL=OFF"),
)  # fmt: skip
IK = Peer(
    "ik_llama.cpp", "ik-llama-cpp-python", "0.1.5", "vendor/ik_llama.cpp", "ik_llama_cpp",
    # Its flash attention for every pair of cache types takes long to compile; float16, which is run, is always in.
    ("-DGGML_IQK_FA_ALL_QUANTS=OFF",),
)  # fmt: skip
PEERS = (LLAMA, IK)


def build(peer: Peer) -> None:
    """Downloads, unpacks and builds what is not there yet. Raises CalledProcessError."""
    if peer.about():
        return
    peer.folder.mkdir(parents=True, exist_ok=True)
    archive = peer.folder / f"{peer.unpacked.name}.tar.gz"
    if not archive.exists():
        _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", peer.project,
             "--dest", peer.folder, f"{peer.project}=={peer.version}")  # fmt: skip
    if not peer.unpacked.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(peer.folder, filter="data")
    compiler, old = _compiler()
    flags = [*COMMON, *peer.flags, *([f"-DCMAKE_CXX_FLAGS={OLD_GCC}"] if old else [])]
    out = peer.folder / "build"
    where = [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={peer.folder / 'lib'}", "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON"]
    _run("cmake", "-G", "Ninja", "-S", peer.unpacked / peer.source, "-B", out, *flags, *where)
    _run("cmake", "--build", out, "--target", "llama")
    about = {"name": peer.name, "package": f"{peer.project} {peer.version}", "flags": flags, "compiler": compiler}
    (peer.folder / "built.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _compiler() -> tuple[str, bool]:
    """The C++ compiler's version line, and whether it is a GCC that needs OLD_GCC."""
    line = subprocess.run(
        [os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    number = line.split()[-1].split(".")[0]
    return line, "clang" not in line and number.isdigit() and int(number) < 13


def _run(*command: object) -> None:
    # CMake and Ninja are beside this Python where its environment has them.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "PATH": path})


def main() -> None:
    for peer in PEERS:
        print(f"{peer.name}: {peer.project} {peer.version}", file=sys.stderr, flush=True)
        build(peer)
        print(json.dumps(peer.about()), flush=True)


if __name__ == "__main__":
    main()
