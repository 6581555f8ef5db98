"""Engines of Kinesis Data Streams: states of streams and consumers, reading, fan-out, queues, limits.

No threads; told the time.
"""
