"""Everything that is kept: the log of each shard, the maps of streams, and what else lies in a data folder."""
