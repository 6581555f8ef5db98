"""Functions as resources: what the Lambda API keeps of them, and what it says about them."""
