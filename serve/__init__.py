"""The serving side: router, verifier and drafters as Ray Serve deployments, and what runs inside them."""
