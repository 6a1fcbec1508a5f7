"""The marketplace's pages: server-rendered, Chinese first, the hub's services in process.

It leaves every rule to the hub; a page loads, calls a service, shows.
"""
