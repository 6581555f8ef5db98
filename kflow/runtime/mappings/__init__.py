"""What runs event source mappings: those of streams by leases, those of queues by polling them."""
