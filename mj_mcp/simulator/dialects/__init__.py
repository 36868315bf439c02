"""The ways in which proxies word one API: one module each, and the tools that they share.

Written from the documentation of each and from what its public source does; nothing is taken from the program under
test.
"""
