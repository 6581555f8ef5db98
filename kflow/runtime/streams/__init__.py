"""Streams of a running node: made, changed, resharded and deleted while producers append and handlers run."""
