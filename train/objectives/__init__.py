"""What a drafter is taught: each term in a file of its own, their weighted sum in `objective`."""
