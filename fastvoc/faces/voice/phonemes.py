"""Text to numbers of symbols, by the package that made a voice: Piper's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sentences(text: str, settings: Mapping[str, Any], path: Path) -> list[list[int]]:
    """Return the numbers of the symbols of each sentence.

    Parameters
    ----------
    text : str
    settings : mapping
        Of Piper, which lay beside the voice.
    path : Path
        Of the voice, for messages.

    Raises
    ------
    ModuleNotFoundError
        Without the package ``piper-tts``.
    ValueError
        If there are no settings, or Piper cannot read them or the text.
    """
    if "phoneme_id_map" not in settings:
        raise ValueError(
            f"{path}: nothing says which symbols its numbers are; Piper's settings, {path.name}.json, belong beside it"
        )
    try:
        from piper import PiperVoice
        from piper.config import PiperConfig
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path}: turning text into symbols needs Piper's own package ({error.name} is not installed); run "
            "`pip install piper-tts`, or give the numbers of the symbols"
        ) from None
    try:
        # what Piper needs a session for is not asked of it
        voice = PiperVoice(session=None, config=PiperConfig.from_dict(dict(settings)))
        return [voice.phonemes_to_ids(phonemes) for phonemes in voice.phonemize(text) if phonemes]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path}: the language of this voice needs the package {error.name} too; run `pip install {error.name}`"
        ) from None
    except Exception as error:  # whatever espeak and the settings of a stranger lead to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: Piper cannot turn this text into symbols ({reason})") from None
