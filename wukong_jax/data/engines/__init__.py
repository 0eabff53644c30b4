"""Where the work of `prepare` is done: in this process, or shard by shard in several."""
