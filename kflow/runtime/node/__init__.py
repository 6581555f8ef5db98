"""The process that owns the log and the workers: it carries out the plan, and judges how workers end."""
