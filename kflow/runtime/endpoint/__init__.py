"""The door for clients: the AWS services over HTTP, and the pages about the node."""
