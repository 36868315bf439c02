"""When to poll the open tasks, and who is told of what a poll shows.

`poller.py` polls; `schedule.py` says when, from what `job_times.py` remembers; `rate_limit.py` holds the ceiling.
"""
