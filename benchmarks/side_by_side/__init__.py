"""The parts of benchmarks/speed.py: our training step beside a strong and a naive PyTorch Wukong."""
