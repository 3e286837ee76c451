"""What is told of a simulation, as documents."""

from archive_schema.wire import WireDocument


class PlateFolderDocument(WireDocument):
    """One attempt at one plate folder."""

    step: int
    path: str
    attempt: int
    current: bool
    files: tuple[str, ...]


class SimulationDocument(WireDocument):
    """The plate folders of a simulation."""

    run: str
    screen: str
    folders: tuple[PlateFolderDocument, ...]


class DistancesDocument(WireDocument):
    """What the chunks of the distance matrix hold, and what they lack."""

    step: int
    size: int
    chunks: tuple[str, ...]
    complete: bool
    pairs: int
    pairs_wanted: int
    missing: tuple[tuple[int, int], ...]
    """The first hundred."""
    repeated: int
    differing: tuple[tuple[int, int], ...]
    thetas: tuple[tuple[int, int], ...]
    """Chain and draw of each."""
    notes: tuple[str, ...]


class ChainDocument(WireDocument):
    """One chain."""

    chain: int
    draws: int
    capacity: int


class ThetasDocument(WireDocument):
    """The parameters that are sampled."""

    step: int
    theta_class: str
    theta_module: str
    chains: tuple[ChainDocument, ...]
    private: tuple[str, ...]
    shared: tuple[str, ...]


class EvaluationDocument(WireDocument):
    """How well the thetas predict."""

    step: int
    rows_from: str | None
    warning: str | None
    mse: float | None
    mse_variance: float | None
    inter_chain_mse_variance: float | None
    chain_ids: tuple[int, ...]
    draws: tuple[int, ...]
    sample_names: tuple[str, ...]
    observations: tuple[float, ...]
