"""What people are told of a data folder and its node: surveys, reports and metrics."""
