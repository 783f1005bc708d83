"""The cache: where verified files live, how they become visible, and what is known about them."""
