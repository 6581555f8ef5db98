"""What tests of event processing lean on: a disk in memory that can lose power, and a simulation of the core.

Nothing else in kflow imports this package.
"""
