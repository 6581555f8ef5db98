"""A small HTTP server without an event loop of its own: bytes in, exchanges out.

Used by `aws`, and by whatever else listens.
"""
