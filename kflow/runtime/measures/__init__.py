"""What services count of themselves, for their own metrics."""
