"""The other side of the link: a network and issuer host that answers ISO 8583 and can be told to misbehave.

`SimulatorServer` runs it inside a test, `python -m network.simulator` as a process of its own.
"""

from network.simulator.faults import Faults
from network.simulator.server import SimulatorConfig, SimulatorServer

__all__ = ["Faults", "SimulatorConfig", "SimulatorServer"]
