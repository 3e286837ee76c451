"""Records every pass of OpenFold or ESMFold by hooks; see `recorder.integrations.vizfold.model`."""

from recorder.integrations.vizfold.model import KEPT, AttachedModel, attach

__all__ = ["KEPT", "AttachedModel", "attach"]
