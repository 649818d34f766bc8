"""A study of your own: dataset, method, study file."""
