"""Builds the extension `capicorn._core` from csrc/ and the libraries of tools/build_deps.py.

CAPICORN_BUILD chooses the kind of build: release (the default), debug (-O1, assertions), asan (debug with
AddressSanitizer and UndefinedBehaviorSanitizer, no freelists) or faults (debug with fault points). The other variables
are described in tools/build_deps.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

import build_deps  # noqa: E402


def extension_sources() -> list[str]:
    """Every C file of csrc but tests and fuzzers, relative to here."""
    found = []
    for path in sorted((ROOT / "csrc").rglob("*.c")):
        relative = path.relative_to(ROOT)
        if not {"test", "tests", "fuzz"} & set(relative.parts) and not path.name.startswith(("test_", "fuzz_")):
            found.append(relative.as_posix())
    return found


def our_flags(mode: str) -> list[str]:
    flags = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    # CPython's headers initialise only some fields of its own structs, and so do method tables.
    flags += ["-Wno-missing-field-initializers", "-D_GNU_SOURCE=1"]
    # As newer compilers have it; an undeclared function would otherwise be missing only when the module is loaded.
    flags += [f"-Werror={what}" for what in ("implicit-function-declaration", "incompatible-pointer-types")]
    flags += ["-O3"] if mode == "release" else []
    flags += build_deps.mode_flags(mode)
    if mode != "release":
        flags += ["-UNDEBUG"]  # CPython's own flags carry -DNDEBUG.
        flags += ["-U_FORTIFY_SOURCE"]  # Some distributions' flags define it; it wants -O2 and hides from ASan.
    if mode == "asan":
        flags += ["-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-DCAP_NO_FREELISTS"]
    if mode == "faults":
        flags += ["-DCAP_FAULTS"]
    return flags


def link_flags(mode: str, folder: Path) -> list[str]:
    """Nothing but PyInit__core leaves the extension: uvloop brings another libuv into the same process."""
    flags = ["-fsanitize=address,undefined"] if mode == "asan" else []
    if sys.platform == "darwin":
        return [*flags, "-Wl,-exported_symbol,_PyInit__core"]
    script = folder / "exports.map"
    script.write_text("{ global: PyInit__core; local: *; };\n")
    return [*flags, f"-Wl,--version-script={script}", "-Wl,--gc-sections", "-Wl,-z,relro,-z,now"]


class BuildExt(build_ext):
    """Compiles side by side, and again only what changed."""

    def run(self) -> None:
        try:
            super().run()
        except build_deps.BuildError as e:
            raise SystemExit(f"\n{e}") from None

    def objects_folder(self) -> Path:
        """Where objects stay for the next build. For an editable install setuptools would take a new one each time."""
        if getattr(self, "editable_mode", False):
            return ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}"
        return Path(self.build_temp).resolve()

    def build_extension(self, ext: Extension) -> None:
        mode = build_deps.mode_from_environment()
        compiler = list(self.compiler.compiler_so)
        cc = build_deps.c_compiler()
        if not os.environ.get("CC"):
            compiler = cc + compiler[len(shlex.split(sysconfig.get_config_var("CC") or "cc")) :]
        includes = [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
        if not any(os.path.isfile(os.path.join(path, "Python.h")) for path in includes):
            raise build_deps.BuildError(
                f"Python.h was not found in {includes[0]}: install the headers of this Python (Debian and Ubuntu: apt "
                "install python3-dev; Fedora: dnf install python3-devel)."
            )
        libraries = build_deps.libraries(build_deps.EXTENSION, mode, cc)
        folder = self.objects_folder() / mode
        folder.mkdir(parents=True, exist_ok=True)

        flags = [*our_flags(mode), "-I", str(ROOT / "csrc")]
        for path in dict.fromkeys(includes):
            flags += ["-isystem", path]
        for lib in libraries:
            flags += lib.cflags
        sources = [ROOT / source for source in ext.sources]
        what = f"capicorn._core ({mode})"
        objects = build_deps.compile_objects(compiler, flags, ROOT, sources, folder, what, bool(self.force))

        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        made = folder / output.name
        made.unlink(missing_ok=True)
        linker = list(self.compiler.linker_so)
        if not os.environ.get("LDSHARED") and not os.environ.get("CC"):
            linker = cc + linker[len(shlex.split(sysconfig.get_config_var("LDSHARED") or "cc")[:1]) :]
        link = [*linker, *objects, "-o", str(made)]
        for lib in libraries:
            link += lib.link
        build_deps.run_all([[*link, *link_flags(mode, folder)]], "capicorn._core (linking)")
        put(made, output)
        self.write_licenses(libraries)

    def copy_extensions_to_source(self) -> None:
        """For an in-place build, which setuptools does in build_lib first."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(ext.name)
            put(built, ROOT / "python" / self.get_ext_filename(ext.name))

    def write_licenses(self, libraries: list[build_deps.Library]) -> None:
        """What is linked statically goes with its licence."""
        texts = []
        for lib in libraries:
            for name, text in lib.licenses.items():
                texts.append(f"{lib.name}: {name}\n{'=' * 40}\n\n{text.rstrip()}\n")
        if texts:
            target = Path(self.build_lib) / "capicorn" / "THIRD-PARTY-LICENSES.txt"
            target.write_text("\n\n".join(texts), encoding="utf-8")


def put(made: Path, target: Path) -> None:
    """Copies a file in place of another. Not over it: a running server has the old one mapped."""
    temporary = target.with_name(target.name + ".new")
    shutil.copy2(made, temporary)
    os.replace(temporary, target)


setup(
    ext_modules=[Extension("capicorn._core", sources=extension_sources())],
    cmdclass={"build_ext": BuildExt},
)
