"""Files of OpenFold's and ESMFold's predictions as VizFold's programs write them."""

from recorder.importers.vizfold.opening import IMPORTER

__all__ = ["IMPORTER"]
