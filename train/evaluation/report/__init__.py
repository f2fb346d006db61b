"""What the studies found, for people: tables, figures and words, as one HTML page and as Markdown."""
