"""Model bundles: descriptions, weights, and the networks that are built from them."""
