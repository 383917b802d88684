"""A client based on aiortc, a public WebRTC stack, that writes its packets by hand.

ICE, DTLS, SRTP and SCTP are aiortc's. The caller chooses the offer, RTP, RTCP and the SCTP payload. Runs
on one asyncio loop.
"""

import asyncio
import contextvars
import json
import random
import secrets
import struct
import time

import aioice.ice
from aiortc import RTCCertificate, RTCDataChannel, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport, RTCSctpTransport
from aiortc.rtcdatachannel import RTCDataChannelParameters
from aiortc.sdp import SessionDescription

# aioice excludes the loopback interface; here it is the only one, and each peer has its own
# address.
_address = contextvars.ContextVar("address", default="127.0.0.1")
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [_address.get()]

PAYLOAD = 1100
CONNECT_S = 20
FORMATS = {
    "vp8": "a=rtpmap:96 VP8/90000\r\n",
    "h264": "a=rtpmap:96 H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}\r\n",
}
EXTENSIONS = {
    1: "urn:ietf:params:rtp-hdrext:sdes:mid",
    3: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    4: "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    5: "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    6: "urn:3gpp:video-orientation",
}


def session_head(mids):
    return f"v=0\r\no=- {random.getrandbits(60)} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {' '.join(mids)}\r\n"


def transport_lines(ufrag, password, fingerprint, setup="actpass"):
    return (
        f"c=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n"
        f"a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n"
    )


def video_line(transport, codec="vp8", mid="0", ssrc=1111, profile="42e01f"):
    extensions = "".join(f"a=extmap:{id} {uri}\r\n" for id, uri in EXTENSIONS.items())
    feedback = "".join(f"a=rtcp-fb:96 {kind}\r\n" for kind in ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc"))
    return (
        f"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n{transport}a=mid:{mid}\r\na=sendrecv\r\na=rtcp-mux\r\n{extensions}"
        f"{FORMATS[codec].format(profile=profile)}{feedback}a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
        f"a=ssrc-group:FID {ssrc} {ssrc + 1}\r\na=ssrc:{ssrc} cname:peer\r\na=ssrc:{ssrc + 1} cname:peer\r\n"
    )


def channel_line(transport, mid="1"):
    return f"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:{mid}\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"


def plain_offer(codec="vp8", extra_video="", head="", transport=None):
    """Returns an offer as a browser might make it, for connections that are never set up."""
    transport = transport or transport_lines("abcd", "a" * 24, ":".join(["AB"] * 32))
    return session_head(["0", "1"]) + head + video_line(transport, codec) + extra_video + channel_line(transport)


class Transport(RTCDtlsTransport):
    """aiortc's DTLS-SRTP, with its packets passed on unchanged."""

    def __init__(self, ice, certificate):
        super().__init__(ice, [certificate])
        self.on_rtp = lambda packet: None
        self.on_rtcp = lambda packet: None

    async def _handle_rtp_data(self, data, arrival_time_ms):
        self.on_rtp(data)

    async def _handle_rtcp_data(self, data):
        self.on_rtcp(data)


class Refused(Exception):
    """The offer was answered with an error, which is in `answer`."""

    def __init__(self, answer):
        super().__init__(f"{answer.status}: {answer.body[:300]!r}")
        self.answer = answer


class Peer:
    """A session of a gateway, from the client's side."""

    def __init__(self, gateway, address, codec="vp8"):
        self.gateway, self.address, self.codec = gateway, address, codec
        self.ssrc = random.getrandbits(31) | 1
        self.sequence, self.timestamp = random.getrandbits(16), random.getrandbits(32)
        self.session = self.secret = None
        # Received pictures: arrival time and RTP timestamp.
        self.pictures = []
        self.packets_received = 0
        self.sender = None
        self.keyframe_wanted = False
        # The gateway's messages on the data channel `control`.
        self.messages = []

    @classmethod
    async def connect(cls, gateway, address, codec="vp8", effect="none", profile="42e01f", channel=True):
        """Sets a session up until the DTLS handshake is complete and the data channel is open."""
        self = cls(gateway, address, codec)
        _address.set(address)
        gatherer = RTCIceGatherer(iceServers=[])
        await gatherer.gather()
        self.ice = RTCIceTransport(gatherer)
        self.ice._connection.ice_controlling = True
        certificate = RTCCertificate.generateCertificate()
        self.transport = Transport(self.ice, certificate)
        self.transport.on_rtp = self._on_rtp
        self.transport.on_rtcp = self._on_rtcp
        self.sctp = RTCSctpTransport(self.transport)

        local = gatherer.getLocalParameters()
        fingerprint = next(f.value for f in certificate.getFingerprints() if f.algorithm == "sha-256")
        lines = transport_lines(local.usernameFragment, local.password, fingerprint)
        sdp = session_head(["0", "1"]) + video_line(lines, codec, ssrc=self.ssrc, profile=profile) + channel_line(lines)
        answer = await asyncio.to_thread(gateway.offer, sdp, address, effect=effect)
        if answer.status != 200:
            await self.ice.stop()
            raise Refused(answer)
        told = answer.json()
        self.session, self.secret = told["session"], told.get("secret")
        self.answer = SessionDescription.parse(told["sdp"])
        media = self.answer.media[0]
        self.payload_type = media.rtp.codecs[0].payloadType
        self.remote = media.ice
        for candidate in media.ice_candidates:
            await self.ice.addRemoteCandidate(candidate)
        await self.ice.addRemoteCandidate(None)
        await asyncio.wait_for(self.ice.start(media.ice), CONNECT_S)
        self.transport._set_role("client")
        await asyncio.wait_for(self.transport.start(media.dtls), CONNECT_S)
        if self.transport.state != "connected":
            raise AssertionError(f"DTLS is {self.transport.state}")
        if channel:
            await self.sctp.start(self.answer.media[1].sctpCapabilities, self.answer.media[1].sctp_port or 5000)
            self.control = self.open_channel("control")
            opened = asyncio.Event()
            self.control.on("open", opened.set)
            self.control.on("message", self._on_message)
            await asyncio.wait_for(opened.wait(), CONNECT_S)
        return self

    def open_channel(self, label):
        return RTCDataChannel(self.sctp, RTCDataChannelParameters(label=label))

    def _on_message(self, message):
        self.messages.append(json.loads(message))

    def _on_rtp(self, data):
        self.packets_received += 1
        payload_type, timestamp, self.sender = data[1] & 0x7F, *struct.unpack_from("!LL", data, 4)
        if payload_type == self.payload_type and data[1] & 0x80:
            self.pictures.append((time.monotonic(), timestamp))

    def _on_rtcp(self, data):
        """Handles a compound packet (RFC 3550 §6.1): notes PLI and FIR."""
        while len(data) >= 4:
            if data[1] == 206 and data[0] & 0x1F in (1, 4):
                self.keyframe_wanted = True
            data = data[4 * (int.from_bytes(data[2:4], "big") + 1) :]

    # Sending

    async def send_rtp(self, data):
        """Sends an RTP or RTCP packet unchanged, encrypted."""
        try:
            await self.transport._send_rtp(data)
        except Exception:  # aiortc raises errors of several libraries once a session has ended
            await asyncio.sleep(0)

    def protected(self, data):
        """Returns the SRTP packet of an RTP packet, or the SRTCP packet of an RTCP packet, to be
        sent later.
        """
        is_rtcp = len(data) >= 2 and 192 <= data[1] <= 223
        session = self.transport._tx_srtp
        return session.protect_rtcp(data) if is_rtcp else session.protect(data)

    async def send_datagram(self, data):
        """Sends a datagram unchanged, from the address that the gateway knows."""
        try:
            await self.ice._send(data)
        except ConnectionError:
            pass

    async def send_sctp(self, data):
        """Sends an SCTP packet unchanged, inside DTLS."""
        try:
            await self.transport._send_data(data)
        except Exception:
            await asyncio.sleep(0)

    def rtp_packet(self, payload, marker=False, payload_type=None, ssrc=None, sequence=None, timestamp=None, extension=b""):
        if sequence is None:
            self.sequence = sequence = (self.sequence + 1) & 0xFFFF
        payload_type = self.payload_type if payload_type is None else payload_type
        first = 0x90 if extension else 0x80
        header = struct.pack(
            "!BBHLL", first, marker << 7 | payload_type, sequence, self.timestamp if timestamp is None else timestamp,
            self.ssrc if ssrc is None else ssrc,
        )
        return header + extension + payload

    def packets(self, payloads):
        """Returns the RTP packets of one frame."""
        self.timestamp = (self.timestamp + 3000) & 0xFFFFFFFF
        last = len(payloads) - 1
        return [self.rtp_packet(payload, marker=index == last) for index, payload in enumerate(payloads)]

    async def send_payloads(self, payloads):
        """Sends one frame, already split into RTP payloads."""
        for packet in self.packets(payloads):
            await self.send_rtp(packet)

    async def send_frame(self, frame):
        """Sends a frame of the session's codec: NAL units, or a VP8 frame."""
        await self.send_payloads(h264_payloads(frame) if self.codec == "h264" else vp8_payloads(frame))

    async def play(self, frames, seconds, until=lambda: False, fps=30):
        """Sends frames at their rate, repeatedly, for a time or until a condition holds. Returns
        whether it held.

        Starts again with the first frame, a keyframe, when the gateway requests one.
        """
        start = time.monotonic()
        count = at = 0
        while time.monotonic() < start + seconds:
            if until():
                return True
            if self.keyframe_wanted:
                self.keyframe_wanted, at = False, 0
            await self.send_frame(frames[at % len(frames)])
            count, at = count + 1, at + 1
            await asyncio.sleep(max(0, start + count / fps - time.monotonic()))
        return until()

    # State

    @property
    def is_connected(self):
        return self.transport.state == "connected"

    def said(self, kind):
        return [message for message in self.messages if message.get("type") == kind]

    async def has_ended(self):
        """Returns whether the gateway no longer knows the session."""
        if not self.is_connected:
            return True
        answer = await asyncio.to_thread(self.gateway.request, "GET", f"/api/sessions/{self.session}")
        return answer.status == 404

    async def close(self):
        for part in (self.sctp, self.transport, self.ice):
            try:
                await asyncio.wait_for(part.stop(), 5)
            except Exception:
                pass  # It has ended by itself, perhaps during an operation

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()


def h264_payloads(units):
    """RFC 6184 with packetization-mode=1: single NAL units, and FU-A for units that are too long
    for a packet.
    """
    payloads = []
    for unit in units:
        if len(unit) <= PAYLOAD:
            payloads.append(unit)
            continue
        parts = [unit[at : at + PAYLOAD] for at in range(1, len(unit), PAYLOAD)]
        for index, part in enumerate(parts):
            ends = (index == 0) << 7 | (index == len(parts) - 1) << 6
            payloads.append(bytes([unit[0] & 0xE0 | 28, ends | unit[0] & 0x1F]) + part)
    return payloads


def vp8_payloads(frame):
    """RFC 7741 with the shortest descriptor: only whether a packet begins the first partition."""
    parts = [frame[at : at + PAYLOAD] for at in range(0, len(frame), PAYLOAD)] or [b""]
    return [bytes([0x10 if index == 0 else 0]) + part for index, part in enumerate(parts)]


def stun_request(username, password, nominate=True, transaction=None, extra=b""):
    """Returns an ICE binding request; without a password, it has no integrity attribute."""
    message = aioice.stun.Message(
        message_method=aioice.stun.Method.BINDING, message_class=aioice.stun.Class.REQUEST, transaction_id=transaction or secrets.token_bytes(12)
    )
    message.attributes["USERNAME"] = username
    message.attributes["PRIORITY"] = 2130706431
    message.attributes["ICE-CONTROLLING"] = random.getrandbits(64)
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    if password is not None:
        message.add_message_integrity(password.encode())
    return bytes(message) + extra
