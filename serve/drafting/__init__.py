"""Who drafts for a text, and how much."""
