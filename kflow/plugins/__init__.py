"""Plugins: `hookspecs` is the whole contract, `manager` finds plugins and calls them. Authors need `hookimpl` only."""

from __future__ import annotations

from kflow.plugins.hookspecs import hookimpl

__all__ = ["hookimpl"]
