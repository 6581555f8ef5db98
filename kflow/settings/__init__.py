"""Settings: one table, checked, with the origin of each value."""

from kflow.settings.convert import nearest
from kflow.settings.loader import load
from kflow.settings.model import FunctionSettings, Settings, StreamSettings
from kflow.settings.table import SETTINGS, Setting

__all__ = ["SETTINGS", "FunctionSettings", "Setting", "Settings", "StreamSettings", "load", "nearest"]
