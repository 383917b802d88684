"""Writes compressed video bit by bit: H.264 parameter sets (ITU-T H.264 §7.3.2) with any value in any
field, and VP8 frame headers (RFC 6386 §9.1).

All streams are based on a real one: its parameter sets are read, fields are replaced, and the result
is written again, so that a decoder that ignores the replaced field continues to decode the slices.
"""

import fractions
import functools
from dataclasses import dataclass, replace

import av

SLICE, IDR, SEI, SPS, PPS, PREFIX, SUBSET_SPS, EXTENSION_SLICE = 1, 5, 6, 7, 8, 14, 15, 20
# Profiles whose SPS contains the chroma format and the bit depth.
HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128}


class Reader:
    def __init__(self, data):
        self.bits = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def u(self, count):
        value = int(self.bits[self.at : self.at + count] or "0", 2)
        self.at += count
        return value

    def ue(self):
        zeros = 0
        while self.bits[self.at] == "0":
            zeros, self.at = zeros + 1, self.at + 1
        return self.u(zeros + 1) - 1

    def se(self):
        value = self.ue()
        return (value + 1) // 2 if value % 2 else -(value // 2)

    def rest(self):
        """Returns the remaining bits before the stop bit."""
        return self.bits[self.at : self.bits.rindex("1")]


class Writer:
    def __init__(self):
        self.bits = []

    def u(self, count, value):
        self.bits.append(f"{value & ((1 << count) - 1):0{count}b}")
        return self

    def ue(self, value):
        code = f"{value + 1:b}"
        self.bits.append("0" * (len(code) - 1) + code)
        return self

    def se(self, value):
        return self.ue(2 * value - 1 if value > 0 else -2 * value)

    def raw(self, bits):
        self.bits.append(bits)
        return self

    def bytes(self):
        """Returns the bits with the stop bit, padded to whole bytes."""
        bits = "".join(self.bits) + "1"
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


def escape(payload):
    """Inserts emulation prevention bytes into a NAL unit (§7.4.1)."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def unescape(nal):
    return nal.replace(b"\0\0\3", b"\0\0")


def nal(kind, payload, importance=3):
    return bytes([importance << 5 | kind]) + escape(payload)


def kind_of(unit):
    return unit[0] & 0x1F


@dataclass
class Sps:
    """A sequence parameter set (§7.3.2.1.1)."""

    profile: int = 66
    constraints: int = 0xC0
    level: int = 30
    id: int = 0
    # The following five fields are written only for high profiles.
    chroma_format: int = 1
    separate_planes: int = 0
    bit_depth_luma_minus8: int = 0
    bit_depth_chroma_minus8: int = 0
    scaling: str = "0"
    log2_max_frame_num_minus4: int = 0
    poc_type: int = 2
    log2_max_poc_lsb_minus4: int = 0
    # Declared number of offsets, and the written offsets, for picture order count type 1.
    poc_cycle: int = 0
    poc_offsets: tuple = ()
    reference_frames: int = 1
    gaps_allowed: int = 0
    width_mbs_minus1: int = 0
    height_mbs_minus1: int = 0
    frame_mbs_only: int = 1
    adaptive: int = 0
    direct_8x8: int = 1
    # Left, right, top, bottom; None: not written.
    crop: tuple | None = None
    # The VUI as bits, without its presence flag; None: not written.
    vui: str | None = None

    @classmethod
    def read(cls, unit):
        reader = Reader(unescape(unit[1:]))
        sps = cls(profile=reader.u(8), constraints=reader.u(8), level=reader.u(8), id=reader.ue())
        if sps.profile in HIGH_PROFILES:
            sps.chroma_format = reader.ue()
            sps.bit_depth_luma_minus8, sps.bit_depth_chroma_minus8 = reader.ue(), reader.ue()
            sps.scaling = f"{reader.u(1)}{reader.u(1)}"[:1]
        sps.log2_max_frame_num_minus4, sps.poc_type = reader.ue(), reader.ue()
        if sps.poc_type == 0:
            sps.log2_max_poc_lsb_minus4 = reader.ue()
        sps.reference_frames, sps.gaps_allowed = reader.ue(), reader.u(1)
        sps.width_mbs_minus1, sps.height_mbs_minus1, sps.frame_mbs_only = reader.ue(), reader.ue(), reader.u(1)
        sps.adaptive = 0 if sps.frame_mbs_only else reader.u(1)
        sps.direct_8x8 = reader.u(1)
        if reader.u(1):
            sps.crop = tuple(reader.ue() for _ in range(4))
        sps.vui = reader.rest() if reader.u(1) else None
        return sps

    def with_(self, **fields):
        return replace(self, **fields)

    def payload(self):
        w = Writer().u(8, self.profile).u(8, self.constraints).u(8, self.level).ue(self.id)
        if self.profile in HIGH_PROFILES:
            w.ue(self.chroma_format)
            if self.chroma_format == 3:
                w.u(1, self.separate_planes)
            w.ue(self.bit_depth_luma_minus8).ue(self.bit_depth_chroma_minus8).u(1, 0).raw(self.scaling)
        w.ue(self.log2_max_frame_num_minus4).ue(self.poc_type)
        if self.poc_type == 0:
            w.ue(self.log2_max_poc_lsb_minus4)
        elif self.poc_type == 1:
            w.u(1, 0).se(0).se(0).ue(self.poc_cycle)
            for offset in self.poc_offsets:
                w.se(offset)
        w.ue(self.reference_frames).u(1, self.gaps_allowed)
        w.ue(self.width_mbs_minus1).ue(self.height_mbs_minus1).u(1, self.frame_mbs_only)
        if not self.frame_mbs_only:
            w.u(1, self.adaptive)
        w.u(1, self.direct_8x8).u(1, self.crop is not None)
        for offset in self.crop or ():
            w.ue(offset)
        w.u(1, self.vui is not None).raw(self.vui or "")
        return w.bytes()

    def nal(self):
        return nal(SPS, self.payload())


@dataclass
class Pps:
    """A picture parameter set (§7.3.2.2)."""

    id: int = 0
    sps_id: int = 0
    entropy: int = 0
    bottom_field: int = 0
    # If it is greater than 0: the type of the map, and the bits that follow it.
    slice_groups_minus1: int = 0
    slice_group_map: int = 0
    slice_group_bits: str = ""
    references_0_minus1: int = 0
    references_1_minus1: int = 0
    weighted: int = 0
    bipredictive: int = 0
    qp_minus26: int = 0
    qs_minus26: int = 0
    chroma_qp: int = 0
    deblocking: int = 1
    constrained_intra: int = 0
    redundant: int = 0
    tail: str = ""

    @classmethod
    def read(cls, unit):
        r = Reader(unescape(unit[1:]))
        pps = cls(id=r.ue(), sps_id=r.ue(), entropy=r.u(1), bottom_field=r.u(1), slice_groups_minus1=r.ue())
        pps.references_0_minus1, pps.references_1_minus1, pps.weighted, pps.bipredictive = r.ue(), r.ue(), r.u(1), r.u(2)
        pps.qp_minus26, pps.qs_minus26, pps.chroma_qp = r.se(), r.se(), r.se()
        pps.deblocking, pps.constrained_intra, pps.redundant, pps.tail = r.u(1), r.u(1), r.u(1), r.rest()
        return pps

    def with_(self, **fields):
        return replace(self, **fields)

    def nal(self):
        w = Writer().ue(self.id).ue(self.sps_id).u(1, self.entropy).u(1, self.bottom_field).ue(self.slice_groups_minus1)
        if self.slice_groups_minus1:
            w.ue(self.slice_group_map).raw(self.slice_group_bits)
        w.ue(self.references_0_minus1).ue(self.references_1_minus1).u(1, self.weighted).u(2, self.bipredictive)
        w.se(self.qp_minus26).se(self.qs_minus26).se(self.chroma_qp)
        w.u(1, self.deblocking).u(1, self.constrained_intra).u(1, self.redundant).raw(self.tail)
        return nal(PPS, w.bytes())


def vui(reorder=0, buffering=1, cpb_count=None, motion_bits=16):
    """Returns the bits of a VUI (§E.1.1) with bitstream restrictions and, if `cpb_count` is given,
    with HRD parameters.
    """
    # no aspect ratio, overscan, video signal, chroma location, or timing
    w = Writer().u(4, 0).u(1, 0)
    if cpb_count is None:
        w.u(1, 0)
    else:
        w.u(1, 1).ue(cpb_count).u(8, 0)
        for _ in range(min(cpb_count + 1, 4)):
            w.ue(1).ue(1).u(1, 0)
        w.u(20, 0)
    w.u(1, 0)
    if cpb_count is not None:
        w.u(1, 0)
    w.u(1, 0).u(1, 1).u(1, 1).ue(2).ue(1).ue(motion_bits).ue(motion_bits).ue(reorder).ue(buffering)
    return "".join(w.bits)


def annex_b(data):
    """Returns the NAL units between start codes."""
    units = [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    return [unit.rstrip(b"\0") or unit for unit in units]


def _encoded(codec, width, height, count, options):
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = fractions.Fraction(1, 30), fractions.Fraction(30)
    context.bit_rate = 400_000
    context.options = options
    packets = []
    for number in range(count):
        frame = av.VideoFrame(width, height, "yuv420p")
        for index, plane in enumerate(frame.planes):
            rows = []
            for y in range(plane.height):
                shift = number * 3 + y * (index + 1)
                row = bytes((x * 2 + shift) % 200 + 20 for x in range(plane.width))
                rows.append(row.ljust(plane.line_size, b"\0"))
            plane.update(b"".join(rows))
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


@functools.cache
def h264_frames(width=320, height=240, count=30):
    """Returns a real H.264 stream: NAL units by frame, the first frame an IDR picture with its
    parameter sets. Constrained baseline.
    """
    options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "300", "threads": "1", "sliced-threads": "0"}
    frames = _encoded("libx264", width, height, count, options)
    return [[unit for unit in annex_b(frame) if kind_of(unit) != SEI] for frame in frames]


@functools.cache
def vp8_frames(width=320, height=240, count=30):
    """Returns a real VP8 stream; the first frame is a keyframe."""
    return _encoded("libvpx", width, height, count, {"deadline": "realtime", "cpu-used": "8", "g": "300", "lag-in-frames": "0"})


def with_parameter_sets(frames, sps, pps=None):
    """Returns the stream with changed parameter sets before its first frame. `sps` and `pps` are
    functions that change the real one.
    """
    first = frames[0]
    real_sps = Sps.read(next(unit for unit in first if kind_of(unit) == SPS))
    real_pps = Pps.read(next(unit for unit in first if kind_of(unit) == PPS))
    slices = [unit for unit in first if kind_of(unit) == IDR]
    return [[sps(real_sps).nal(), (pps(real_pps) if pps else real_pps).nal(), *slices], *frames[1:]]


def vp8_keyframe(frame, width=None, height=None, first_partition=None, token_partitions=None, version=None):
    """Returns a real keyframe with other values in its header; sizes are the 16 bits of the header,
    including the scaling.
    """
    header = bytearray(frame)
    tag = int.from_bytes(frame[:3], "little")
    if first_partition is not None:
        tag = tag & 0x1F | first_partition << 5
    if version is not None:
        tag = tag & ~0xE | version << 1
    header[:3] = (tag & 0xFFFFFF).to_bytes(3, "little")
    if width is not None:
        header[6:8] = width.to_bytes(2, "little")
    if height is not None:
        header[8:10] = height.to_bytes(2, "little")
    return bytes(header)


def mutated(random, data, changes, first=0):
    """Returns the bytes with some of them changed, duplicated or removed; those before `first`
    stay.
    """
    data = bytearray(data)
    for _ in range(changes):
        if len(data) <= first:
            break
        at = random.randrange(first, len(data))
        match random.randrange(5):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + random.randrange(1, 9)]
            case 3:
                data[at:at] = random.randbytes(random.randrange(1, 9))
            case 4:
                data[at : at + 4] = random.randbytes(4)
    return bytes(data)
