"""A dataset and methods that live outside the package, as a reader's own would."""
