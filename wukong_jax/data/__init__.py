"""From raw files to batches: schema, ingest, store, pipeline, synthetic data and recipes."""
