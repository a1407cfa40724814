"""The cortex: the durable card database and its tamper-evident ledger.

``db_interface.CortexDB`` is the public face; ``records`` and ``faults`` are its nouns. SQL runs nowhere else: tables
and triggers are in ``migrations/COMPONENT/NNN_name.sql``, statements in ``queries/name.sql``.
"""
