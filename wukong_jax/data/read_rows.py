"""Raw rows, checked, to a spill."""

from collections import Counter
from collections.abc import Callable, Iterator

from wukong_jax.data.bad_rows import BadRowFile
from wukong_jax.data.encode import check_columns, clean, raw_arrays, refuse
from wukong_jax.data.readers.prefetch import prefetched
from wukong_jax.data.sources import Chunk
from wukong_jax.data.spec import FileSplit, IngestSpec
from wukong_jax.data.spill import Spill
from wukong_jax.data.splitting import splits_by_place
from wukong_jax.data.vocabulary import Dictionary
from wukong_jax.errors import DataError


def read_rows(
    chunks: Iterator[Chunk],
    spec: IngestSpec,
    words: dict[str, Dictionary],
    spill: Spill,
    bad_rows: BadRowFile | None,
    tell: Callable[[int], None],
) -> Counter[str]:
    """Check and spill rows; returns how many values of each multi-hot column were cut.

    Bad rows go to `bad_rows`, or without it raise `DataError`. `tell` is called with the rows spilled so far.
    """
    cut: Counter[str] = Counter()
    codes_of = {name: dictionary.codes for name, dictionary in words.items()}
    for chunk in prefetched(chunks):
        check_columns(chunk, spec)
        if (chunk.split is None) == isinstance(spec.split, FileSplit):
            given = "one list of files" if chunk.split is None else "files for each split"
            raise DataError(f"{chunk.file}: received {given}, but the split rule is {type(spec.split).__name__}")
        cleaned = clean(chunk, spec)
        if bad_rows is None:
            refuse(cleaned.bad, "mend the row, or set such rows aside with --on-bad-rows skip", chunk.unit)
        else:
            bad_rows.add(cleaned.bad)
        rows = cleaned.chunk.frame.height
        if rows:
            arrays = raw_arrays(cleaned.chunk, spec, codes_of, cut=cut)
            splits = splits_by_place(spec.split, rows, chunk.split, arrays.get("time"))
            spill.append(arrays if splits is None else arrays | {"split": splits})
        tell(spill.rows)
    return cut
