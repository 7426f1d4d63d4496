"""VITS voices in ONNX, of Piper and for sherpa-onnx: text to sound, of which fastvoc runs the decoder."""

from fastvoc.faces.voice.files import open_voice
from fastvoc.faces.voice.settings import VoiceConfig
from fastvoc.faces.voice.voice import Voice

__all__ = ["Voice", "VoiceConfig", "open_voice"]
