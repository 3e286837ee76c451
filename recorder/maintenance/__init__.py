"""What is done to a run beside recording it: checked, repaired, swept, removed."""

from recorder.maintenance.findings import Action, Finding, Found, Repair, Report
from recorder.maintenance.removal import remove_run
from recorder.maintenance.repair import GRACE_S, repair_run
from recorder.maintenance.superseded import sweep_compacted_run
from recorder.maintenance.verification import verify_run

__all__ = [
    "GRACE_S",
    "Action",
    "Finding",
    "Found",
    "Repair",
    "Report",
    "remove_run",
    "repair_run",
    "sweep_compacted_run",
    "verify_run",
]
