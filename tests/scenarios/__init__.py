"""Scenarios of event source mappings as data (`tests/behaviour/mappings/*.toml`), and what runs them.

`form` reads the files and compares; `script` is the handler they describe; `stepped` runs one on the engine alone, in
virtual time; `live` runs a file of them in one runtime; `api` runs them by boto3, on an endpoint or in a real account.
A backend gives an `Observed` for a `Scenario`, so that another one needs no other files.
"""
