"""The process that runs one function: its engines, its environments, its log."""
