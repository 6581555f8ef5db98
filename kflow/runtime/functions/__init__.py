"""Functions as clients call them: as resources, invoked at once or later."""
