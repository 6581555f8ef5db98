"""A small HTTP server without an event loop of its own: bytes in, exchanges out.

```
loop ── Server ─┬─ Connection ── (TlsLayer) ── Http1 ── Http1Exchange ─┐
                └─ Connection ── (TlsLayer) ── Http2 ── Http2Exchange ─┴─ handler
```

What is above a `Connection` owns no socket, no timer and no thread: it is a `Speaker` that is given bytes and sends
them to a `Wire`, and so is tested in memory. Used by `aws`, and by whatever else listens.
"""
