"""melcli: speech language models that read mel spectrograms directly."""

from melcli import auto_classes as _auto_classes
from melcli import torchaudio_guard as _guard

__version__ = "0.1.0.dev0"

_guard.install()
_auto_classes.install()
