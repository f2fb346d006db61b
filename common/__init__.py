"""What serving and training must agree on: nouns, messages, sampling, models, the engine. Knows no Ray."""
