"""AWS Lambda: a method for each operation, a module for each kind of them."""
