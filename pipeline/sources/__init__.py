"""Videos and images as frames with times: found, opened, read through a decoder in a process of its own."""
