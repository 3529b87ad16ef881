"""Synthetic furnished rooms with exact truth: segmentation, depth, normals and edges."""
