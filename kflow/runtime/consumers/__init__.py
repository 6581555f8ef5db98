"""Where consumers begin, where they stand, and what becomes of that when shards and mappings come and go."""
