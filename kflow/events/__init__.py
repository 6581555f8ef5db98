"""The events that Lambda hands to functions, both ways: pure functions on records."""
