"""Functions as AWS Lambda runs them: forms of handlers, invocation, error payloads, and the event source mapping."""
