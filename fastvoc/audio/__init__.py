"""Signals without weights: mel spectrograms, sound files, filter banks, Griffin-Lim and distances."""

from __future__ import annotations

from fastvoc.audio.files.sound import read_audio, resample, write_audio
from fastvoc.audio.griffin_lim import griffin_lim, mel_to_wave
from fastvoc.audio.mels.convention import FeatureConfig
from fastvoc.audio.mels.convert import convert_mel, find_convention, why_not
from fastvoc.audio.mels.levels import plausible_range
from fastvoc.audio.mels.plausibility import suspicion
from fastvoc.audio.mels.spectrogram import (
    CONVENTIONS,
    MelConfig,
    Normalization,
    linear_magnitude,
    linear_mel,
    mel_spectrogram,
)
from fastvoc.audio.metrics import FULL_BAND, SUB_BAND, log_spectral_distance, mel_l1, multi_resolution_stft, pesq, stoi
from fastvoc.audio.pqmf import PqmfConfig, analysis_filters, pqmf_analysis, pqmf_synthesis, synthesis_weight

__all__ = [
    "CONVENTIONS",
    "FULL_BAND",
    "SUB_BAND",
    "FeatureConfig",
    "MelConfig",
    "Normalization",
    "PqmfConfig",
    "analysis_filters",
    "convert_mel",
    "find_convention",
    "griffin_lim",
    "linear_magnitude",
    "linear_mel",
    "log_spectral_distance",
    "mel_l1",
    "mel_spectrogram",
    "mel_to_wave",
    "multi_resolution_stft",
    "pesq",
    "plausible_range",
    "pqmf_analysis",
    "pqmf_synthesis",
    "read_audio",
    "resample",
    "stoi",
    "suspicion",
    "synthesis_weight",
    "why_not",
    "write_audio",
]
