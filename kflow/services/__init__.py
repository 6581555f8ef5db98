"""AWS services: an operation is a method, which translates and decides nothing."""
