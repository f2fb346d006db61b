"""What a drafter is worth, measured against the target it is for."""
