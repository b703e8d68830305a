"""Stores: the event log with its projections, and the folders of blobs and logs beside it.

Nothing is imported here: who needs a folder of blobs (a site does) does not pay for a database.
"""
