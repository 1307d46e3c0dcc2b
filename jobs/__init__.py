"""The job store: records, transitions, leases, fair queue, events, keys and artifacts.

Redis is the only source of truth; every transition is one Lua script in jobs/lua.
"""
