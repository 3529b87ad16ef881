"""Pictures of predictions: panels, overlays, WebM files."""
