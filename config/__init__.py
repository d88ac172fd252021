"""Settings, one class per trust zone, read from the environment (`DURAPAY_…`).

A process loads only the classes that it needs, so that a secret which belongs to one zone is not even asked for in
another: the HSM's PIN is in `HsmSettings` (vault worker, API), the key that opens credentials in `UnsealingSettings`.
"""
