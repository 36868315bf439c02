"""When to poll the open tasks, and who is notified of the result.

`poller.py` polls; `schedule.py` says when, from the times in `job_times.py`; `rate_limit.py` limits polls per second.
"""
