"""What was found as values that JSON has."""

import math
from typing import Any


def plain(value: Any) -> Any:
    """JSON values: named tuples as objects, and null for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
