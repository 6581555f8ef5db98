"""Processes and threads: the node, the zygote, the workers, and the tools that talk to them."""
