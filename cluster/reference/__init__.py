"""Reference pages of the documentation, made from the types that they are about."""
