"""The Performance Law (arXiv 2412.00430): data quality, the law of depth, width and data, and its best model."""
