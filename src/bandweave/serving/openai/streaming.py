"""Whether an answer is streamed, and with which sums at its end."""

from __future__ import annotations

from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields


def read_streaming(fields: Fields) -> tuple[bool, bool]:
    """``stream``, and ``include_usage`` of ``stream_options``. ``ApiError`` for options of what is
    no stream."""
    streams = fields.flag("stream")
    options = fields.object("stream_options")
    if options is None:
        return streams, False
    if not streams:
        raise bad("stream_options is for streams; set stream to true", "stream_options")
    options.refuse("include_obfuscation", False)
    return True, options.flag("include_usage")
