# SPDX-License-Identifier: GPL-3.0-or-later
"""A SigMF recording as a source, with what its metadata says as tags."""

from __future__ import annotations

import json
from pathlib import Path

from gnuradio import blocks, gr

from replay_sigmf import Samples
from rfvit_rt.errors import WireError
from rfvit_rt.wire.samples import item_size

BUFFER_ITEMS = 1 << 18  # a Python block keeps up with a fast stream only where it gets much at a time
EXAMPLE = Path(__file__).resolve().parent.parent / "recordings" / "lte_nr_20MHz.sigmf-meta"


class SigmfSource(gr.hier_block2):
    """Samples of a recording, tagged with ``rx_rate`` and, where a capture starts, ``rx_freq``.

    It reads the plain kind: a ``.sigmf-meta`` beside a ``.sigmf-data`` file of one complex channel, without headers.
    ``rfvit replay`` reads all kinds, and checks them.

    Parameters
    ----------
    recording : str
        The ``.sigmf-meta`` file; empty is the example that comes with the flowgraphs.
    repeat : bool
        Begin again at the end; only the first pass is tagged.
    tags : bool
        Whether to tag at all.

    Raises
    ------
    RuntimeError
        If the recording is missing or of another kind; in one line.
    """

    def __init__(self, recording: str = "", repeat: bool = False, tags: bool = True) -> None:
        gr.hier_block2.__init__(
            self, "SigMF source", gr.io_signature(0, 0, 0), gr.io_signature(1, 1, gr.sizeof_gr_complex)
        )
        self.meta_path = meta_path(recording)
        fields, captures = _read(self.meta_path)
        self.sample_rate = float(fields["core:sample_rate"])
        datatype = fields["core:datatype"]
        data_path = self.meta_path.with_suffix(".sigmf-data")
        try:
            size = item_size(datatype)
        except WireError as error:
            raise RuntimeError(f"{self.meta_path}: {error}") from None
        self.sample_count = data_path.stat().st_size // size
        self._file = blocks.file_source(gr.sizeof_char, str(data_path), repeat, 0, self.sample_count * size)
        self._file.set_min_output_buffer(BUFFER_ITEMS * size)
        self._samples = Samples(datatype, self.sample_rate, captures if tags else [])
        self._samples.set_min_output_buffer(BUFFER_ITEMS)
        self.connect(self._file, self._samples, self)


def meta_path(recording: str) -> Path:
    """The metadata file that a recording's name stands for."""
    path = Path(recording).expanduser() if recording else EXAMPLE
    return path.with_suffix(".sigmf-meta") if path.suffix == ".sigmf-data" else path


def sample_rate_of(recording: str) -> float:
    """Samples per second of a recording, in Hz.

    Raises
    ------
    RuntimeError
        As :class:`SigmfSource`.
    """
    return float(_read(meta_path(recording))[0]["core:sample_rate"])


def _read(path: Path) -> tuple[dict, list[dict]]:
    """Return the global fields, and the captures in the form that :class:`replay_sigmf.Samples` takes."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        fields, captures = metadata["global"], metadata["captures"]
        missing = {"core:datatype", "core:sample_rate"} - fields.keys()
        special = [name for name in ("core:dataset", "core:trailing_bytes") if fields.get(name)]
        special += [name for capture in captures for name in ("core:header_bytes",) if capture.get(name)]
        first = int(fields.get("core:offset", 0))
        described = [
            {
                "offset": int(capture["core:sample_start"]) - first,
                "rx_freq": capture.get("core:frequency"),
                "rx_time": None,
            }
            for capture in captures or [{"core:sample_start": first}]
        ]
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}; name a .sigmf-meta file") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{path} is not SigMF metadata ({error!r})") from None
    if missing:
        raise RuntimeError(f"{path} lacks {' and '.join(sorted(missing))}; add it to the global section")
    if special or int(fields.get("core:num_channels") or 1) != 1:
        raise RuntimeError(
            f"{path} has headers or several channels, which this flowgraph cannot read; use rfvit replay"
        )
    if not path.with_suffix(".sigmf-data").is_file():
        raise RuntimeError(f"no samples at {path.with_suffix('.sigmf-data')}; put the data file there")
    return fields, described
