"""What `polydraft evaluate` finds out, a study a file."""
