"""Kinesis Data Streams. Source of behaviour: documented and recorded facts, cited where they are used."""
