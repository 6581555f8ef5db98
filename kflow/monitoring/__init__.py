"""The engines of CloudWatch: log groups over functions' output, filter patterns, metrics and their expressions."""
