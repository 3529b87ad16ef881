"""Videos and image sequences as frames with times: finds them, and reads them through a decoder process."""
