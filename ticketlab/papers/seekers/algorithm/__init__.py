"""Newer seekers: hard-concrete gates on frozen weights, and one ticket planted several times.

`gates` searches by gates that open with a learned probability, `crowd` plants k copies of a ticket.
"""
