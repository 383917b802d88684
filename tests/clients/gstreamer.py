#!/usr/bin/python3
"""Publishes to a room, or watches one, with GStreamer's webrtcbin. The interpreter is the system's, because Debian's
packages of GStreamer are made for that one.

A publisher takes pictures from a GStreamer source, by default a Y4M video on standard input. A viewer writes what it
receives to standard output, as Y4M whose frames have the parameter XPTS, in nanoseconds. Both write events with the
time of day to standard error, and end the session on SIGTERM.

usage: gstreamer.py publish https://gateway.example/whip/studio?effect=sepia --source "v4l2src ! videoconvert"
       gstreamer.py watch https://gateway.example/whep/studio > studio.y4m
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import gi

for library in ["Gst", "GstSdp", "GstVideo", "GstWebRTC"]:
    gi.require_version(library, "1.0")
from gi.repository import GLib, Gst, GstSdp, GstVideo, GstWebRTC  # noqa: E402

ENCODERS = {
    "vp8": "vp8enc deadline=1 cpu-used=8 target-bitrate=1500000 keyframe-max-dist={keyframes} ! rtpvp8pay picture-id-mode=15-bit",
    "h264": "openh264enc complexity=low bitrate=1500000 gop-size={keyframes} ! h264parse ! rtph264pay aggregate-mode=zero-latency config-interval=-1",
}
# Without these options, pictures after a lost packet are decoded from references that are not there.
WAIT = "wait-for-keyframe=true request-keyframe=true"
DECODERS = {"vp8": f"rtpvp8depay {WAIT} ! vp8dec", "h264": f"rtph264depay {WAIT} ! h264parse ! openh264dec"}
RTP = "application/x-rtp,media=video,clock-rate=90000,payload=96,encoding-name={}"
# Without a profile, H.264 means level 1.
H264 = ",packetization-mode=(string)1,profile-level-id=(string)42e01f"


def tell(event):
    print(f"{time.time() * 1000:.0f} {event}", file=sys.stderr, flush=True)


class Client:
    """One webrtcbin, and the session of the gateway that belongs to it."""

    def __init__(self, options):
        self.options = options
        self.loop, self.failure, self.session = GLib.MainLoop(), None, None
        self.pipeline, self.line = self._publisher() if options.role == "publish" else self._viewer()
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        # Retransmission: the gateway asks for lost packets, or is asked.
        self.line.set_property("do-nack", True)
        self.peer.connect("notify::ice-gathering-state", self._gathered)
        self.peer.connect("notify::connection-state", self._changed)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self.end("{0.message}: {1}".format(*message.parse_error())))
        bus.connect("message::eos", lambda *_: self.end())

    def _publisher(self):
        """Returns a pipeline from the source to webrtcbin, and the transceiver."""
        encoder, rtp = ENCODERS[self.options.codec].format(keyframes=self.options.keyframes), RTP.format(self.options.codec.upper())
        pipeline = Gst.parse_launch(f"{self.options.source} ! queue ! {encoder} name=pay pt=96 ! {rtp} ! webrtcbin name=peer")
        watched = Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_UPSTREAM
        pipeline.get_by_name("pay").get_static_pad("sink").add_probe(watched, self._encoded)
        line = pipeline.get_by_name("peer").emit("get-transceiver", 0)
        line.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        return pipeline, line

    def _viewer(self):
        """Returns a pipeline that only has a webrtcbin so far, and the transceiver."""
        pipeline, peer = Gst.Pipeline(), Gst.ElementFactory.make("webrtcbin", "peer")
        pipeline.add(peer)
        peer.connect("pad-added", self._received)
        # Timestamps are the sender's, not adjusted by when packets arrive.
        Gst.util_set_object_arg(peer.get_by_name("rtpbin"), "buffer-mode", "synced")
        rtp = RTP.format(self.options.codec.upper()) + (H264 if self.options.codec == "h264" else "")
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        return pipeline, peer.emit("add-transceiver", direction, Gst.Caps.from_string(rtp))

    def run(self):
        """Runs until SIGTERM, SIGINT, or the end of the source. Returns the reason of a failure."""
        for number in [signal.SIGTERM, signal.SIGINT]:
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        self.peer.connect("on-negotiation-needed", self._negotiate)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        if self.session:
            with contextlib.suppress(urllib.error.HTTPError):
                self.ask("DELETE", self.session)
        self.pipeline.set_state(Gst.State.NULL)
        return self.failure

    def end(self, failure=None):
        self.failure = failure
        self.loop.quit()

    def _negotiate(self, peer):
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self._offered))

    def _offered(self, promise):
        reply = promise.get_reply()
        self.peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def _gathered(self, peer, _):
        """Posts the offer when it has all candidates. Called by a thread of webrtcbin, which must not wait."""
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            threading.Thread(target=self._exchange, daemon=True).start()

    def _changed(self, peer, _):
        tell(peer.get_property("connection-state").value_nick)

    def _exchange(self):
        try:
            offer = self.peer.get_property("local-description").sdp.as_text()
            answer, headers = self.ask("POST", self.options.url, offer.encode())
        except OSError as error:
            reason = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
            GLib.idle_add(self.end, f"{error}: {reason}")
            return
        self.session = urllib.parse.urljoin(self.options.url, headers["Location"])
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        tell("answered")
        self.peer.emit("set-remote-description", description, Gst.Promise.new())

    def ask(self, method, url, body=None):
        request = urllib.request.Request(url, body, {"Content-Type": "application/sdp"}, method=method)
        if self.options.token:
            request.add_header("Authorization", f"Bearer {self.options.token}")
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode(), response.headers

    def _encoded(self, _, info):
        """Tells of keyframes, and drops the gateway's requests for them where it is not to listen."""
        if info.type & Gst.PadProbeType.BUFFER:
            if not info.get_buffer().has_flags(Gst.BufferFlags.DELTA_UNIT):
                tell("keyframe")
        elif GstVideo.video_event_is_force_key_unit(info.get_event()):
            tell("request")
            if self.options.deaf:
                return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK

    def _received(self, _, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        sink = "queue ! videoconvert ! video/x-raw,format=I420 ! appsink name=sink emit-signals=true sync=false"
        decoder = Gst.parse_bin_from_description(f"{DECODERS[self.options.codec]} ! {sink}", True)
        decoder.get_by_name("sink").connect("new-sample", self._decoded)
        self.pipeline.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))
        self.size = None

    def _decoded(self, sink):
        sample = sink.emit("pull-sample")
        video = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
        buffer, size = sample.get_buffer(), (video.width, video.height)
        if self.size is None:
            tell("picture")
        if size != self.size:
            # A new header begins a new video, as in files that were joined.
            self.size = size
            sys.stdout.buffer.write(b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n" % size)
        sys.stdout.buffer.write(b"FRAME XPTS=%d\n" % buffer.pts)
        for plane in range(3):
            stride, offset = video.stride[plane], video.offset[plane]
            width, height = [size, *2 * [tuple((side + 1) // 2 for side in size)]][plane]
            data = buffer.extract_dup(offset, stride * height)
            sys.stdout.buffer.write(data if stride == width else b"".join(data[y * stride : y * stride + width] for y in range(height)))
        sys.stdout.buffer.flush()
        return Gst.FlowReturn.OK


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["publish", "watch"])
    parser.add_argument("url")
    parser.add_argument("--codec", choices=list(ENCODERS), default="vp8")
    parser.add_argument("--token", default=os.environ.get("TOKEN"), help="a key or token; by default the variable TOKEN")
    parser.add_argument("--source", default="fdsrc fd=0 ! y4mdec ! identity sync=true", help="the source of a publisher")
    parser.add_argument("--keyframes", type=int, default=60, help="frames from one keyframe to the next")
    parser.add_argument("--deaf", action="store_true", help="makes no keyframe when it is asked for one")
    Gst.init(None)
    return Client(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
