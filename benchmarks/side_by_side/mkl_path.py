"""The other path of PyTorch's MKL on this processor: AVX2 on Intel, AVX-512 on AMD, where a stock MKL does without it.

MKL takes its AVX-512 path where it finds an Intel processor. On AMD a preloaded library answers that question.
"""

import pathlib
import shutil
import subprocess

STRONG_AVX2, STRONG_AVX512 = OTHER_PATHS = ("strong_avx2", "strong_avx512")
AS_ON_INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def other_path(vendor: str) -> str | None:
    """The peer that runs the path a stock MKL does not take; None without a C compiler to build what it needs."""
    if vendor == "GenuineIntel":
        return STRONG_AVX2
    return STRONG_AVX512 if shutil.which("cc") else None


def variables_of(peer: str, environment: dict[str, str], folder: pathlib.Path) -> dict[str, str]:
    """The environment that sets a peer's path; the library is built in `folder`."""
    if peer == STRONG_AVX2:
        return {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    if peer != STRONG_AVX512:
        return {}
    library = folder / "as_on_intel.so"
    if not library.exists():
        source = library.with_suffix(".c")
        source.write_text(AS_ON_INTEL)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": ":".join(filter(None, (environment.get("LD_PRELOAD"), str(library))))}
