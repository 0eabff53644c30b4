"""Which code was measured: a digest of all that a step is made of."""

import hashlib
import pathlib

PARTS = ("ops", "models", "embeddings", "training")


def step_digest(root: pathlib.Path) -> str:
    """The first 12 digits of SHA-256 over the names and bytes of the step's source files, below `root`/wukong_jax."""
    digest = hashlib.sha256()
    for part in PARTS:
        for path in sorted((root / "wukong_jax" / part).rglob("*")):
            if path.suffix in (".py", ".cc", ".h"):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
