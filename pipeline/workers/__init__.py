"""What computes a video, in this process or in Ray actors."""
