"""The data plane: leases, streams of typed messages, and the replica at their other end."""
