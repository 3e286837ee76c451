"""What runs of `ising` hold."""

from archive_schema.models import Place
from archive_schema.systems import FieldDeclaration, SystemDeclaration

SYSTEM = SystemDeclaration(
    name="ising",
    title="Chains of an Ising model",
    vocabulary="-+",
    fields={
        Place.TRACE: {
            "spins": FieldDeclaration(("sample", "site"), tokens=True, description="after a sweep"),
        },
    },
)
