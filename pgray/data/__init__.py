"""Where token shards come from, and whether they can be trusted."""
