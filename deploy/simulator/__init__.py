"""The production brain on a virtual clock: see docs/simulator.md."""

from deploy.simulator.cluster import Death, SimCluster, SimInstance
from deploy.simulator.columns import Columns
from deploy.simulator.recorder import Recorder, RequestRecord
from deploy.simulator.report import Report
from deploy.simulator.simulate import simulate

__all__ = ["Columns", "Death", "Recorder", "Report", "RequestRecord", "SimCluster", "SimInstance", "simulate"]
