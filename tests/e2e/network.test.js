/**
 * Tests of a browser behind a network with packet loss or outages. They judge what is seen, never
 * how soon.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sharing } from './harness.js';
import { assertHidden, assertInOrder, assertShareShown } from './judge.js';
import { relayed, withoutRtx } from './relay.js';

const withSession = sharing();

/** Calls `withSession` behind a relay. */
const behind = (network, use) =>
  withSession({}, async (session) => {
    const relay = await relayed(session.page, network);
    try {
      return await use({ ...session, relay });
    } finally {
      relay.close();
    }
  });

for (const codec of ['vp8', 'h264']) {
  test(`where one packet in twenty is lost each way the picture goes on, in order and hidden, ${codec}`, () =>
    behind({ loss: 0.05, delayMs: 20 }, async ({ played, relay, connect, moreFrames, seen, report, errors }) => {
      await connect({ effect: 'background_blur', codec });
      await moreFrames(120);
      const [records, camera, { 'inbound-rtp': inbound }] = [await seen(), await seen('source'), await report()];
      assertHidden(records, played, ['blurred']);
      assertInOrder(records, played, { readable: 0.8 });
      // Skips the first second, in which the connection is made.
      assertShareShown(records.slice(30), camera, played, 0.4);
      assert.ok(relay.lost > 0.03 * relay.passed, `${relay.lost} lost, ${relay.passed} passed`);
      assert.ok(inbound.retransmittedPacketsReceived > 0, 'the browser had packets sent again');
      assert.deepEqual(errors, []);
    }));
}

for (const codec of ['vp8', 'h264']) {
  test(`a browser without RTX gets packets again on the media SSRC, and sends them again, ${codec}`, () => {
    const sources = new Set();
    // RFC 7983 and RFC 5761: an RTP packet begins with 2 bits of version, and is no RTCP.
    const onDown = (datagram) => datagram[0] >> 6 === 2 && (datagram[1] < 192 || datagram[1] > 223) && sources.add(datagram.readUInt32BE(8));
    return behind({ loss: 0.05, delayMs: 20, offer: withoutRtx, onDown }, async ({ played, relay, connect, moreFrames, seen, report, errors }) => {
      await connect({ effect: 'background_blur', codec });
      await moreFrames(200);
      const [records, camera, { 'inbound-rtp': inbound, 'outbound-rtp': outbound }] = [await seen(), await seen('source'), await report()];
      assertHidden(records, played, ['blurred']);
      assertInOrder(records, played, { readable: 0.8 });
      assertShareShown(records.slice(30), camera, played, 0.4);
      assert.ok(relay.lost > 0.03 * relay.passed, `${relay.lost} lost, ${relay.passed} passed`);
      assert.equal(inbound.rtxSsrc, undefined);
      assert.ok(inbound.nackCount > 0 && inbound.packetsLost < 0.01 * inbound.packetsReceived, `${inbound.packetsLost} of ${inbound.packetsReceived} packets stayed away after ${inbound.nackCount} requests`);
      assert.ok(outbound.nackCount > 0 && outbound.retransmittedPacketsSent > 0, `${outbound.retransmittedPacketsSent} packets were sent again after ${outbound.nackCount} requests`);
      assert.deepEqual([...sources], [inbound.ssrc], 'nothing else comes, such as probes on SSRC 0');
      assert.deepEqual(errors, []);
    });
  });
}

test('a network that was gone for seconds brings the same session back, hidden from the first picture on', () =>
  behind({ delayMs: 20 }, async ({ played, page, relay, connect, moreFrames, seen }) => {
    const id = await connect({ effect: 'background_blur' });
    await moreFrames(60);
    relay.cut();
    // Keeps the camera running for this long: a second or more.
    await relay.until(() => relay.lost >= 300);
    relay.restore();
    await moreFrames(45);
    const records = await seen();
    assertHidden(records, played, ['blurred']);
    const early = records.filter(({ rtp }, index) => index > 0 && ((rtp - records[index - 1].rtp) | 0) <= 0);
    assert.deepEqual(early, [], 'no picture comes after a newer one');
    assert.deepEqual(await page.evaluate(() => [probe.kept.output.id, probe.kept.output.state]), [id, 'live']);
  }));
