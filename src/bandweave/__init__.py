"""bandweave weaves the memory bandwidth of several machines into one."""

__version__ = "0.1.0"
NUMERICS_VERSION = 2

_LIBRARY = {
    "Completion": "bandweave.serving.model",
    "Model": "bandweave.serving.model",
    "SamplingParams": "bandweave.generation.sampling",
    "load": "bandweave.serving.load",
}


def __getattr__(name: str) -> object:
    """``load`` and what belongs to it, imported when they are asked for: commands start sooner."""
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_LIBRARY[name]), name)
    except ImportError as error:
        from bandweave.missing_engine import missing_engine

        if not (sentence := missing_engine(error)):
            raise
        raise ImportError(sentence, name=error.name) from error
