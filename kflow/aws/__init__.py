"""The wire of AWS services, out of botocore's models: parse, validate, dispatch, serialise.

Knows no service by name.
"""
