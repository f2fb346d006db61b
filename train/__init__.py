"""The training side: from text to published drafters, many languages at once."""
