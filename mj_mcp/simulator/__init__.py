"""A simulated Midjourney Proxy that costs nothing: real HTTP, real time, real PNGs, and faults on request.

    async with Simulator(job_seconds=None) as sim:
        sim.inject("imagine", faults.reset_after_accept())
        ...                       # point the program under test at sim.url with the key "test-key"
        sim.finish(sim.ledger[0].task_id)
        assert sim.fired["reset_after_accept"] == 1
        assert not sim.duplicates()

It speaks each dialect of the family (`dialect="plus"`).

Owns a copy of the proxy, written from its specification. Imports nothing else of this package: a fake that shares our
parser would share its mistakes.
"""

from mj_mcp.simulator import faults
from mj_mcp.simulator.api import Job
from mj_mcp.simulator.dialects.desk import Habits
from mj_mcp.simulator.fault import Fault
from mj_mcp.simulator.hostile import KINDS
from mj_mcp.simulator.jobs import Charge, ReceivedRequest
from mj_mcp.simulator.simulator import Simulator
from mj_mcp.simulator.site import DialectName

__all__ = ["KINDS", "Charge", "DialectName", "Fault", "Habits", "Job", "ReceivedRequest", "Simulator", "faults"]
