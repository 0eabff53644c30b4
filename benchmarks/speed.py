"""Speed and memory of the training and evaluation step beside two PyTorch Wukongs.

    python benchmarks/speed.py                                   # one small cell, in a minute
    python benchmarks/speed.py --cells "M 16384 1M" --allocator /usr/lib/x86_64-linux-gnu/libjemalloc.so.2
    python benchmarks/speed.py --all --write docs/performance.md # can be stopped; goes on where it was

`ours` is the step of `train.py`. `strong` is the same model and updates in PyTorch: fused projection, torch.compile,
fused Adam, row-wise Adagrad of the touched rows (fbgemm where installed), micro-batches; a short calibration picks the
fastest form. `strong, AVX2` (on Intel) is the same with MKL held to AVX2; on AMD, where a stock MKL takes that path,
`strong, AVX-512` is told that the processor is Intel's. `naive` has dense embedding gradients and Adam.
Needs `pip install '.[experiments]'`; for the peer's fastest tables also `pip install --no-deps fbgemm-gpu-cpu`.
"""

import pathlib
import sys

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from benchmarks.side_by_side.driver import main

    sys.exit(main(__doc__))
