"""Calls of services that kflow does not speak, passed on to where `[tool.kflow.services]` says."""
