"""Get token shards, and check them."""
