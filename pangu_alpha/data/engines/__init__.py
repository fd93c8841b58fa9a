"""Engines: what runs the factory's pure stages on many record batches; one machine's processes, others to come."""
