"""Triggers: what makes a function run. One module per trigger."""
