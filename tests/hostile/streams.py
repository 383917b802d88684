"""Attacks by compressed video: parameter sets, frame headers and slices with wrong, absurd or missing
parts.

A stream counts as refused if its session has ended or was told the error, and no frame of it was shown.
"""

import random

from attack import Attack, each, fresh_address
from bits import (
    EXTENSION_SLICE, PPS, PREFIX, SPS, SUBSET_SPS, Sps, h264_frames, kind_of, mutated, nal, vp8_frames, vp8_keyframe, vui,
    with_parameter_sets,
)
from peer import Peer

# Duration in seconds for which a stream is repeated; the gateway must have refused it by then.
REPEATED_S = 8
# A stream that is accepted is shown within this time, in seconds.
NOT_SHOWN_S = 2
# Number of pictures that may still be in transit when a stream changes.
SLACK = 3
# Number of streams at once: those that are refused only wait for that, those that are shown are painted.
REFUSED_AT_ONCE, SHOWN_AT_ONCE = 16, 8
# Values at which parsers and sums overflow.
LARGE = (0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE)


class Streams(Attack):
    async def refusal(self, frames, codec="h264", sound=None, must_end=True):
        """Plays a stream in a session of its own; returns what was wrong with the gateway's
        reaction, or None.

        `sound`: a first frame that may be shown. `must_end`: the session must end, or be told, in
        addition to not being shown.
        """
        async with await Peer.connect(self.gateway, fresh_address(), codec) as peer:
            def was_told():
                return not peer.is_connected or peer.said("bye") or peer.said("error")

            if sound:
                await peer.play([sound], 2, until=lambda: peer.pictures)
                peer.keyframe_wanted = False
            shown = len(peer.pictures) + SLACK if sound else 0
            await peer.play(frames, REPEATED_S if must_end else NOT_SHOWN_S, until=lambda: was_told() or len(peer.pictures) > shown)
            if len(peer.pictures) > shown:
                return f"{len(peer.pictures)} pictures were shown"
            if must_end and not was_told() and not await peer.has_ended():
                return "neither ended nor told"
            for message in peer.said("bye"):
                if message["reason"] != "undecodable":
                    return f"ended for another reason: {message}"
            return None

    async def assert_refused(self, streams, codec="h264", sound=None, must_end=True):
        """All of these streams are refused, and the neighbour is not affected. `streams`: by their
        defect.
        """
        async with self.undisturbed():
            results = await each([self.refusal(frames, codec, sound, must_end) for frames in streams.values()], REFUSED_AT_ONCE)
        for name, wrong in zip(streams, results):
            with self.subTest(name):
                self.assertIsNone(wrong)

    async def assert_survived(self, streams, codec="h264", seconds=2):
        """These streams may be shown or refused."""
        async def play(frames):
            async with await Peer.connect(self.gateway, fresh_address(), codec) as peer:
                await peer.play(frames, seconds, until=lambda: not peer.is_connected)

        async with self.undisturbed():
            await each([play(frames) for frames in streams.values()], SHOWN_AT_ONCE)


def changed(**fields):
    return with_parameter_sets(h264_frames(), lambda sps: sps.with_(**fields))


def with_pps(**fields):
    return with_parameter_sets(h264_frames(), lambda sps: sps, lambda pps: pps.with_(**fields))


class H264(Streams):
    async def test_sound_streams_are_shown(self):
        """The control: parameter sets that were read, changed and written in the same way, but are
        valid, are accepted.
        """
        streams = {
            "as it is": h264_frames(),
            "cropped": changed(crop=(0, 8, 0, 4)),
            "more references": changed(reference_frames=4),
            "with bitstream restrictions": changed(vui=vui()),
        }
        results = await each([self.refusal(frames) for frames in streams.values()])
        for name, result in zip(streams, results):
            with self.subTest(name):
                self.assertRegex(result or "", "shown")

    async def test_cropping_that_exceeds_the_picture(self):
        streams = {"all of the width": changed(crop=(80, 80, 0, 0)), "all of the height": changed(crop=(0, 0, 60, 60))}
        for value in LARGE:
            streams[f"one side, {value}"] = changed(crop=(value, 0, 0, 0))
        # Offsets that are large each, but whose sum is small if it is stored in too few bits. A
        # parser may depend on their bit position within a byte, which the preceding fields shift.
        for first in ((1 << 14) + 5, (1 << 17) - 1, (1 << 29) - 1, (1 << 31) - 500):
            for size in (1 << 31, 1 << 32):
                streams[f"left and right, {first} of {size}"] = changed(crop=(first, (4 - first) % size, 0, 0))
                streams[f"top and bottom, {first} of {size}"] = changed(crop=(0, 0, first, (4 - first) % size))
        pair = ((1 << 14) + 5, (1 << 31) - (1 << 14) - 1)
        for before in ((0, 0), (1, 0), (3, 0), (3, 3), (7, 3), (7, 7), (15, 7)):
            streams[f"top and bottom after {before}"] = changed(crop=(*before, *pair), vui=None)
        for references in (1, 2, 3):
            streams[f"left and right, {references} references"] = changed(crop=(*pair, 0, 0), vui=None, reference_frames=references)
        await self.assert_refused(streams)

    async def test_more_reference_frames_than_the_level_has_room_for(self):
        await self.assert_refused({str(count): changed(reference_frames=count) for count in (17, 33, 255, 5000, *LARGE)})

    async def test_sizes_beyond_the_limit(self):
        streams = {}
        for width, height in ((180, 180), (255, 143), (511, 287), (0, 4095), (4095, 0), (4095, 4095), (19, 0xFFFF), (0xFFFF, 0xFFFF)):
            streams[f"{width}x{height}"] = changed(width_mbs_minus1=width, height_mbs_minus1=height, level=52)
        streams["large, with many references"] = changed(width_mbs_minus1=255, height_mbs_minus1=143, level=52, reference_frames=16)
        for value in LARGE:
            streams[f"width {value}"] = changed(width_mbs_minus1=value, level=52)
            streams[f"height {value}"] = changed(height_mbs_minus1=value, level=52)
        await self.assert_refused(streams)

    async def test_levels_beyond_the_limit_or_unknown(self):
        await self.assert_refused({str(level): changed(level=level) for level in (60, 62, 99, 255)})

    async def test_other_chroma_formats_and_bit_depths(self):
        streams = {f"chroma format {chroma}": changed(profile=244, chroma_format=chroma) for chroma in (0, 2, 3, 4, 0xFFFF)}
        streams["separate planes"] = changed(profile=244, chroma_format=3, separate_planes=1)
        for depth in (1, 2, 6, 7, 200, 0xFFFFFFFE):
            streams[f"luma {depth}"] = changed(profile=110, bit_depth_luma_minus8=depth)
            streams[f"chroma {depth}"] = changed(profile=110, bit_depth_chroma_minus8=depth)
        await self.assert_refused(streams)

    async def test_huge_values_in_each_field_of_the_parameter_sets(self):
        streams = {}
        for name in ("id", "log2_max_frame_num_minus4", "poc_type", "reference_frames"):
            for value in (0x10000, 0xFFFFFFFE):
                streams[f"SPS {name} {value}"] = changed(**{name: value})
        streams["SPS order counts"] = changed(poc_type=0, log2_max_poc_lsb_minus4=0xFFFF)
        streams["SPS cycle of order counts"] = changed(poc_type=1, poc_cycle=0xFFFFFFFE)
        streams["SPS cycle of order counts, 256"] = changed(poc_type=1, poc_cycle=256, poc_offsets=(0,) * 256)
        for name in ("id", "sps_id", "references_0_minus1", "references_1_minus1", "slice_groups_minus1"):
            streams[f"PPS {name}"] = with_pps(**{name: 0xFFFFFFFE})
        for name in ("qp_minus26", "qs_minus26", "chroma_qp"):
            streams[f"PPS {name}"] = with_pps(**{name: 0x7FFFFFFF})
        await self.assert_refused(streams)

    async def test_absurd_usability_information_does_no_harm(self):
        streams = {
            "reordering": changed(vui=vui(reorder=0xFFFE, buffering=0xFFFF)),
            "buffering": changed(vui=vui(buffering=0xFFFFFFFE)),
            "buffers of the model": changed(vui=vui(cpb_count=0xFFFFFFFE)),
            "motion": changed(vui=vui(motion_bits=0xFFFFFFFE)),
            "cut short": changed(vui="1111"),
        }
        await self.assert_survived(streams)

    async def test_units_of_scalable_and_multiview_video(self):
        sound = h264_frames()
        sps = next(unit for unit in sound[0] if kind_of(unit) == SPS)
        extra = {
            "prefix": nal(PREFIX, b"\x80\x00\x07\x00", 2),
            "subset of parameters": nal(SUBSET_SPS, Sps.read(sps).with_(profile=83).payload() + b"\x80"),
            "slice of a layer": nal(EXTENSION_SLICE, b"\xc0\x00\x07" + sound[0][-1][1:200]),
        }
        await self.assert_refused({name: [[unit, *frame] for frame in sound] for name, unit in extra.items()})

    async def test_other_parameters_without_a_new_start(self):
        sound = h264_frames()
        sps = Sps.read(next(unit for unit in sound[0] if kind_of(unit) == SPS))
        pps = next(unit for unit in sound[0] if kind_of(unit) == PPS)
        streams = {}
        for name, other in {
            "larger": sps.with_(width_mbs_minus1=59, height_mbs_minus1=39, level=40),
            "smaller": sps.with_(width_mbs_minus1=1, height_mbs_minus1=1),
            "references": sps.with_(reference_frames=8, level=40),
        }.items():
            streams[name] = [[other.nal(), pps, *frame] for frame in sound[1:]]
        await self.assert_refused(streams, sound=sound[0], must_end=False)

    async def test_thousands_of_units_in_a_picture(self):
        sound = h264_frames()
        sps, pps, idr = sound[0][:3]
        dice = random.Random(2)
        streams = {
            "empty units": [[*sound[0], *([bytes([0x0C])] * 3000)], *sound[1:]],
            "parameter sets": [[*([sps, pps] * 1500), idr], *sound[1:]],
            "many ids": [[*(Sps.read(sps).with_(id=number % 40).nal() for number in range(1500)), *sound[0]], *sound[1:]],
            "slices of a byte": [[sps, pps, *([bytes([0x65, 0x88])] * 2000)], *sound[1:]],
            "units of noise": [[*(dice.randbytes(30) for _ in range(1000))], *sound[1:]],
        }
        # These frames are large, so only a few per second are sent.
        async def play(frames):
            async with await Peer.connect(self.gateway, fresh_address(), "h264") as peer:
                for frame in frames[:1] * 3 + frames[1:5]:
                    await peer.send_payloads(aggregated(frame))
                    await peer.play(sound[1:3], 0.3, until=lambda: not peer.is_connected)

        async with self.undisturbed():
            await each([play(frames) for frames in streams.values()])

    async def test_parameter_sets_and_slices_that_are_cut_short(self):
        sps, pps, idr = h264_frames()[0][:3]
        streams = {f"SPS of {length}": [[sps[:length], pps, idr]] * 30 for length in (1, 2, 3, 4, 5, 7)}
        for length in (1, 2):
            streams[f"PPS of {length}"] = [[sps, pps[:length], idr]] * 30
        streams["no parameter sets"] = [[idr]] * 30
        streams["nothing but a header"] = [[bytes([0x65])]] * 30
        await self.assert_refused(streams, must_end=False)
        # Truncated before the end of the VUI.
        await self.assert_survived({length: [[sps[:length], pps, idr]] * 30 for length in (10, len(sps) - 1)}, seconds=1)

    async def test_mutated_streams(self):
        streams = {}
        for seed in range(12):
            dice = random.Random(seed)
            streams[seed] = [
                [mutated(dice, unit, dice.randrange(1, 4), first=dice.randrange(2)) if dice.random() < 0.5 else unit for unit in frame]
                for frame in h264_frames()
            ]
        for seed in range(12, 20):
            dice = random.Random(seed)
            streams[seed] = with_parameter_sets(
                h264_frames(),
                lambda sps: sps.with_(
                    reference_frames=dice.randrange(17), width_mbs_minus1=dice.randrange(40), height_mbs_minus1=dice.randrange(40),
                    poc_type=dice.choice((0, 2)), crop=tuple(dice.randrange(120) for _ in range(4)), level=dice.choice((10, 30, 52)),
                    frame_mbs_only=dice.randrange(2), profile=dice.choice((66, 77, 100)),
                ),
                lambda pps: pps.with_(entropy=dice.randrange(2), references_0_minus1=dice.randrange(32), weighted=dice.randrange(2)),
            )
        await self.assert_survived(streams)


class Vp8(Streams):
    async def test_sound_streams_are_shown(self):
        self.assertRegex(await self.refusal(vp8_frames(), "vp8") or "", "shown")

    async def test_sizes_beyond_the_limit_and_of_nothing(self):
        key = vp8_frames()[0]
        sizes = ((16383, 16383), (0xFFFF, 0xFFFF), (16383, 240), (320, 16383), (3841, 2161), (0, 0), (0, 240), (320, 0))
        await self.assert_refused({f"{w}x{h}": [vp8_keyframe(key, w, h)] * 30 for w, h in sizes}, "vp8")

    async def test_partitions_outside_the_frame(self):
        key = vp8_frames()[0]
        streams = {str(size): [vp8_keyframe(key, first_partition=size)] * 30 for size in (len(key), len(key) + 1, 0x10000, 0x7FFFF)}
        await self.assert_refused(streams, "vp8")

    async def test_keyframes_that_are_cut_short(self):
        key = vp8_frames()[0]
        streams = {length: [key[:length]] * 30 for length in (0, 1, 3, 9, 10, 11, 30)}
        await self.assert_refused(streams, "vp8", must_end=False)

    async def test_unknown_versions_do_no_harm(self):
        key, *others = vp8_frames()
        await self.assert_survived({version: [vp8_keyframe(key, version=version), *others] for version in (1, 2, 3, 4, 7)}, "vp8", 1)

    async def test_sizes_that_change_with_each_frame(self):
        key = vp8_frames()[0]
        dice = random.Random(3)
        frames = [vp8_keyframe(key, dice.randrange(1, 1400), dice.randrange(1, 1400)) for _ in range(60)]
        await self.assert_survived({"of each": frames, "a wide line": [vp8_keyframe(key, 16383, 1)] * 30}, "vp8", 2)

    async def test_mutated_streams(self):
        streams = {}
        for seed in range(16):
            dice = random.Random(seed)
            # Half of the streams keep the first bytes, which contain the size.
            streams[seed] = [mutated(dice, frame, dice.randrange(1, 5), first=seed % 2 * 10) if dice.random() < 0.6 else frame for frame in vp8_frames()]
        await self.assert_survived(streams, "vp8")


def aggregated(units):
    """RFC 6184 §5.7.1: aggregates small units into STAP-A packets."""
    payloads, packet = [], b"\x78"
    for unit in units:
        if len(packet) + 2 + len(unit) > 1150 and len(packet) > 1:
            payloads.append(packet)
            packet = b"\x78"
        packet += len(unit).to_bytes(2, "big") + unit[:1100]
    return [*payloads, packet]
