"""What tools ask of a data folder, and what a node answers them."""
