"""What is done to a run that is not being recorded: checked, removed."""

from recorder.maintenance.removal import remove_run
from recorder.maintenance.verification import Finding, Report, verify_run

__all__ = ["Finding", "Report", "remove_run", "verify_run"]
