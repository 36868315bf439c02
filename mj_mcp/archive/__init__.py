"""Where originals are kept: a folder of limited size and, if configured, a bucket."""
