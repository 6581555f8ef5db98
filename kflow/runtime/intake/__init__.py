"""How records come in: connections to the node's socket, appends, commits, and answers in order."""
