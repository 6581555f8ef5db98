"""Who runs what: leases, places and the plan that brings them together. Pure, and told the time."""
