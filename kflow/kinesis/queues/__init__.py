"""Queues over a stream: records one by one, each received until it is acknowledged. Engines, told the time."""
