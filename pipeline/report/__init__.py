"""Reports of a run as a page and as JSON; without torch."""
