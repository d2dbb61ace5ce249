"""A mount from its options to its end: builds the object graph and runs it."""
