"""What is wrong with a configuration or a cluster, and what to do about it."""
