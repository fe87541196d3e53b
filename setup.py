"""Build of the native operations, for `pip install --no-build-isolation -e .`.

CPU kernels are always built; CUDA kernels when torch is a CUDA build, a CUDA compiler is found and a GPU is
visible. FORCE_CUDA=1 builds them without a GPU (TORCH_CUDA_ARCH_LIST names the architectures), FORCE_CUDA=0
skips them. `python setup.py build_ext --inplace` builds without installing; `python setup.py check_cuda`
compiles every CUDA source for one architecture and keeps nothing, with or without a GPU. The library defines
no Python module: one build serves every Python version. An unchanged library is kept, and after an edit only
the changed sources are compiled. MRB_SANITIZE=1 builds with the address and undefined-behaviour sanitizers,
in a folder of its own (`make sanitize`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Command, Extension, setup

ROOT = Path(__file__).resolve().parent
SANITIZE = os.environ.get("MRB_SANITIZE", "") not in ("", "0")
BUILD = ROOT / "build" / ("sanitized" if SANITIZE else "native")
DEFAULT_ARCHES = "7.5;8.0;8.6;8.9;9.0+PTX"
HOST_FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fopenmp",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    # Moved by 32 bytes, the loop of roi_pool took 16 % longer.
    "-falign-functions=64",
]
# For `make sanitize`. No vptr: types of torch have no run-time information here.
SANITIZER_FLAGS = [
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize=vptr",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-D_GLIBCXX_ASSERTIONS",
    "-O1",
    "-g1",
]
# --fmad=false: the same rounding as on the CPU, so that comparisons with a threshold agree.
NVCC_FLAGS = ["-O3", "-std=c++17", "--fmad=false", "--expt-relaxed-constexpr"]


def fail(sentence: str) -> None:
    """Exit with an error message of one sentence."""
    sys.exit(f"error: {sentence}")


def find_toolkit() -> Path | None:
    """Root of the CUDA toolkit: CUDA_HOME, CUDA_PATH, the nvcc on PATH, or the usual folder."""
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    on_path = shutil.which("nvcc")
    roots = [Path(name) for name in named if name]
    if on_path:
        roots.append(Path(on_path).resolve().parent.parent)
    roots.append(Path("/usr/local/cuda"))
    # A toolkit has nvvm beside bin; a wrapper script called nvcc has not.
    return next((r for r in roots if (r / "bin" / "nvcc").is_file() and (r / "nvvm").is_dir()), None)


def toolkit_problem(toolkit: Path | None, torch_cuda: str | None) -> str | None:
    """Why CUDA sources cannot be compiled, with the fix, or None."""
    if torch_cuda is None:
        return "this torch is built without CUDA; install a CUDA build of torch"
    if toolkit is None:
        return (
            f"no CUDA compiler found; install the CUDA toolkit {torch_cuda} and set CUDA_HOME to its folder"
        )
    text = subprocess.run([str(toolkit / "bin" / "nvcc"), "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.(\d+)", text)
    if release is None or release.group(1) != torch_cuda.split(".")[0]:
        version = ".".join(release.groups()) if release else "an unknown version"
        return (
            f"the CUDA toolkit in {toolkit} is {version}, torch was built with {torch_cuda}; "
            f"set CUDA_HOME to a toolkit {torch_cuda.split('.')[0]}.x"
        )
    return None


def pip_cuda_headers(torch_cuda: str) -> list[str]:
    """Header folders of pip's CUDA packages, which complete a toolkit that comes without them."""
    spec = importlib.util.find_spec("nvidia")
    major = torch_cuda.split(".")[0]
    folders: list[Path] = []
    for location in spec.submodule_search_locations if spec and spec.submodule_search_locations else []:
        folders += [Path(location) / f"cu{major}" / "include", *sorted(Path(location).glob("*/include"))]
    return list(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))


def want_cuda() -> tuple[bool, Path | None, str]:
    """Whether to build CUDA kernels, the toolkit, and a sentence for the log."""
    import torch

    forced = os.environ.get("FORCE_CUDA", "").strip()
    if forced not in ("", "0", "1"):
        fail(
            f"FORCE_CUDA must be 0 or 1, got {forced!r}; unset it to build CUDA kernels where there is a GPU"
        )
    if forced == "0":
        return False, None, "CPU kernels only (FORCE_CUDA=0)"
    if forced == "" and not torch.cuda.is_available():
        return False, None, "CPU kernels only (no GPU is visible; FORCE_CUDA=1 builds CUDA kernels anyway)"
    toolkit = find_toolkit()
    problem = toolkit_problem(toolkit, torch.version.cuda)
    if problem and forced == "1":
        fail(f"FORCE_CUDA=1, but {problem}")
    if problem:
        return False, None, f"warning: CPU kernels only, although a GPU is visible: {problem}"
    return True, toolkit, f"CPU and CUDA kernels (toolkit in {toolkit})"


def require_compiler() -> None:
    """Exit with an error when there is no C++ compiler."""
    name = os.environ.get("CXX", "").split(" ")[0]
    if name and not shutil.which(name):
        fail(f"the C++ compiler named by CXX is not found: {name}; correct or unset CXX")
    if not name and not any(shutil.which(c) for c in ("c++", "g++", "clang++")):
        fail("no C++ compiler found; install one (Debian/Ubuntu: apt-get install g++) or name it in CXX")


def make_extension(cuda: bool) -> Extension:
    """The library maskrcnn_benchmark/_C.abi3.so."""
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    sources = [
        *ROOT.glob("csrc/*.cpp"),
        *ROOT.glob("csrc/cpu/*.cpp"),
        *ROOT.glob("csrc/evaluation/*.cpp"),
        *ROOT.glob("csrc/masks/*.cpp"),
        *ROOT.glob("csrc/records/*.cpp"),
        *(ROOT.glob("csrc/cuda/*.cu") if cuda else []),
    ]
    includes = include_paths("cuda" if cuda else "cpu")
    if cuda:
        includes += pip_cuda_headers(str(torch.version.cuda))
    defines = ["-DMRB_WITH_CUDA"] if cuda else []
    checks = SANITIZER_FLAGS if SANITIZE else []
    return Extension(
        "maskrcnn_benchmark._C",
        sources=sorted(str(path.relative_to(ROOT)) for path in sources),
        depends=sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/**/*.h")),
        include_dirs=includes,
        library_dirs=library_paths("cpu"),
        # OpenMP and the CUDA runtime are not named: torch has loaded its own, and a second copy of the
        # OpenMP runtime would ignore torch.set_num_threads.
        libraries=["c10", "torch", "torch_cpu", *(["c10_cuda", "torch_cuda"] if cuda else [])],
        extra_link_args=[flag for flag in checks if flag.startswith("-fsanitize")],
        extra_compile_args={"cxx": [*HOST_FLAGS, *checks, *defines], "nvcc": [*NVCC_FLAGS, *defines]},
        language="c++",
        py_limited_api=True,
    )


def build_command() -> type[Command]:
    """torch's build_ext with a permanent build folder, so that unchanged sources are not compiled again."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildNative(BuildExtension):
        """Builds into build/native, also when pip asks for a temporary folder."""

        def finalize_options(self) -> None:
            """Fix the folder of object files; record the settings they were made with."""
            super().finalize_options()
            self.build_temp = str(BUILD)
            self.settings_changed = False

        def run(self) -> None:
            """Rebuild all when a setting has changed (CUDA, torch, ...), else only outdated files."""
            require_compiler()
            cuda = any(source.endswith(".cu") for source in self.extensions[0].sources)
            settings = BUILD / "settings.txt"
            current = describe_settings(cuda)
            if settings.is_file() and settings.read_text() != current:
                shutil.rmtree(BUILD)
                self.settings_changed = True
            super().run()
            BUILD.mkdir(parents=True, exist_ok=True)
            settings.write_text(current)

        def build_extension(self, ext: Extension) -> None:
            """Keep a library that is newer than its sources (torch's command would link it again)."""
            library = Path(self.get_ext_fullpath(ext.name))
            inputs = [ROOT / name for name in (*ext.sources, *ext.depends, "setup.py")]
            fresh = library.is_file() and all(i.stat().st_mtime <= library.stat().st_mtime for i in inputs)
            if fresh and not self.settings_changed:
                print(f"{library.name} is up to date", flush=True)
            else:
                super().build_extension(ext)

        def copy_extensions_to_source(self) -> None:
            """Copy the library into the package, unless it is there already."""
            for extension in self.extensions:
                name = self.get_ext_filename(self.get_ext_fullname(extension.name))
                built, target = Path(self.build_lib) / name, ROOT / name
                if not target.is_file() or target.read_bytes() != built.read_bytes():
                    partial = target.with_suffix(".partial")
                    shutil.copy2(built, partial)
                    partial.replace(target)

    return BuildNative


def describe_settings(cuda: bool) -> str:
    """Text of the settings that object files depend on besides the sources."""
    import torch

    arches = os.environ.get("TORCH_CUDA_ARCH_LIST", "") if cuda else ""
    compiler = os.environ.get("CXX", "")
    return (
        f"torch {torch.__version__}\ncuda {cuda} {arches}\ncompiler {compiler}\n{HOST_FLAGS}\n{NVCC_FLAGS}\n"
        f"{SANITIZER_FLAGS if SANITIZE else ''}"
    )


class CheckCuda(Command):
    """Compile every CUDA source to an object in a temporary folder; exit 1 when one fails."""

    description = "compile the CUDA sources for one architecture, without keeping the results"
    user_options = [("arch=", None, "architecture (default sm_80)")]

    def initialize_options(self) -> None:
        """Default architecture."""
        self.arch = "sm_80"

    def finalize_options(self) -> None:
        """No option depends on another."""

    def run(self) -> None:
        """Compile and print one line per source."""
        import torch
        from torch.utils.cpp_extension import COMMON_NVCC_FLAGS, include_paths

        toolkit = find_toolkit()
        if toolkit is None:
            print("check_cuda: skipped, no CUDA compiler found (install a toolkit, or set CUDA_HOME to one)")
            return
        problem = toolkit_problem(toolkit, torch.version.cuda)
        if problem:
            print(f"check_cuda: skipped, {problem}")
            return
        folders = [
            *include_paths("cpu"),
            str(toolkit / "include"),
            *pip_cuda_headers(str(torch.version.cuda)),
        ]
        includes = [word for folder in folders for word in ("-isystem", folder)]
        failures = 0
        with tempfile.TemporaryDirectory() as scratch:
            for source in sorted(ROOT.glob("csrc/cuda/*.cu")):
                command = [
                    str(toolkit / "bin" / "nvcc"),
                    "-c",
                    str(source),
                    "-o",
                    f"{scratch}/{source.stem}.o",
                ]
                command += [
                    *includes,
                    *COMMON_NVCC_FLAGS,
                    *NVCC_FLAGS,
                    f"-arch={self.arch}",
                    "-DMRB_WITH_CUDA",
                ]
                done = subprocess.run([*command, "-Xcompiler", "-fPIC"], capture_output=True, text=True)
                print(f"check_cuda: {source.name}: {'ok' if done.returncode == 0 else 'FAIL'}", flush=True)
                if done.returncode != 0:
                    failures += 1
                    print(done.stderr, flush=True)
        if failures:
            fail(f"{failures} CUDA sources do not compile")


def main() -> None:
    """Describe the build to setuptools."""
    if importlib.util.find_spec("torch") is None:
        fail("torch is needed: pip install -r requirements.txt, then pip install --no-build-isolation -e .")
    cuda, toolkit, sentence = want_cuda()
    if toolkit is not None:
        os.environ["CUDA_HOME"] = str(toolkit)  # read by torch.utils.cpp_extension when it is imported
        import torch

        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHES)
    if "build_ext" in sys.argv or any("wheel" in word for word in sys.argv):
        print(f"native operations: {sentence}", flush=True)
    setup(
        ext_modules=[make_extension(cuda)],
        cmdclass={"build_ext": build_command(), "check_cuda": CheckCuda},
        options={"bdist_wheel": {"py_limited_api": f"cp{sys.version_info.major}{sys.version_info.minor}"}},
    )


if __name__ == "__main__":
    main()
