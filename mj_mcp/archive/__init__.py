"""Where originals are kept: a folder under a ceiling, and a bucket where there is one."""
