"""What every test runs under: hypothesis draws the same examples every time and has no clock."""

from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, database=None)
settings.load_profile("house")
