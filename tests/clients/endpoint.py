"""WHIP and WHEP as a client speaks them: plain HTTP with SDP bodies."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "hostile"))

from gateway import Gateway  # noqa: E402, F401

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
CANDIDATES = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n"
    "a=candidate:3 1 udp 2122260223 a0b1c2d3-0000-4000-8000-000000000000.local 50000 typ host\r\na=end-of-candidates\r\n"
)
H264 = "a=rtpmap:{pt} H264/90000\r\na=fmtp:{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}\r\n"
VP8 = "a=rtpmap:96 VP8/90000\r\n"
OPUS = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n"
FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
TRANSPORT = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n" + FINGERPRINT


def line(kind, mid, direction, formats, types="96", setup="actpass"):
    """Returns a media section of an offer."""
    return (
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {types}\r\nc=IN IP4 0.0.0.0\r\n{TRANSPORT}a=setup:{setup}\r\na=mid:{mid}\r\n"
        f"a={direction}\r\na=rtcp-mux\r\n{formats}"
    )


def offer(*lines):
    """Returns an offer whose sections share a transport and have the identifiers 0, 1, …"""
    mids = " ".join(str(n) for n in range(len(lines)))
    return f"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n" + "".join(lines)


def camera(direction="sendonly", **options):
    return offer(line("audio", 0, direction, OPUS, "111", **options), line("video", 1, direction, VP8, **options))


def section(answer, kind):
    """Returns the lines of the section of this kind in an answer."""
    sections = answer.decode().split("\r\nm=")
    return next(text for text in sections[1:] if text.startswith(kind)).split("\r\n")
