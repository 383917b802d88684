/** Tests of audio with the video, two sessions at once, sessions one after the other, and leaks. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { becomes, openPage, withSession } from './harness.js';
import { assertHidden, assertInOrder } from './judge.js';

const listed = async (gateway) => (await (await fetch(new URL('api/sessions', gateway.url))).json()).sessions;

test('sound goes back beside the picture', () =>
  withSession({ audio: true }, async ({ played, page, connect, moreFrames, seen, report }) => {
    await connect({ effect: 'background_blur' });
    await moreFrames(30);
    // Chromium measures only sound that is played.
    await page.evaluate(() => Object.assign(probe.keep('speaker', new Audio()), { srcObject: probe.kept.output.output }).play());
    const isAudible = (entry) => entry.type === 'inbound-rtp' && entry.kind === 'audio' && entry.packetsReceived > 50 && entry.totalAudioEnergy > 0;
    await becomes(page, `(async () => [...(await probe.kept['output.pc'].getStats()).values()].some(${isAudible}))()`);
    const audio = await report('audio');
    assert.equal(audio['inbound-rtp'].codec, 'opus');
    assertHidden(await seen(), played, ['blurred']);
  }));

test('two sessions at once are both live, each with its own effect', () =>
  withSession({}, async ({ played, browser, gateway, connect, moreFrames, seen }) => {
    const other = await openPage(browser, gateway, played);
    const ids = [await connect({ effect: 'background_blur', codec: 'vp8' }), await other.connect({ effect: 'face_detection', codec: 'h264' })];
    assert.equal(new Set(ids).size, 2);
    await Promise.all([moreFrames(60), other.moreFrames(60)]);
    const [mine, theirs] = [await seen(), await other.seen()];
    const about = await listed(gateway);
    assert.deepEqual(about.map(({ id }) => id).toSorted(), ids.toSorted());
    assertInOrder(mine, played, { readable: 0.8 });
    assertInOrder(theirs, played, { readable: 0.8 });
    assertHidden(mine, played, ['blurred']);
    assertHidden(theirs, played, ['framed', 'painted', 'blurred']);
    await other.page.context().close();
    const count = (await seen()).length;
    await moreFrames(30);
    assert.ok((await seen()).length > count, 'one goes on when the other leaves');
  }));

test('a session that was closed is gone, and the next one works', () =>
  withSession({}, async ({ played, gateway, page, errors, connect, moreFrames, seen, close }) => {
    for (let turn = 0; turn < 3; turn++) {
      const id = await connect({ effect: 'background_blur' });
      await moreFrames(5);
      await close();
      assert.equal((await fetch(new URL(`api/sessions/${id}`, gateway.url))).status, 404);
      assertHidden(await seen(), played, ['blurred']);
    }
    assert.deepEqual(await listed(gateway), []);
    assert.deepEqual(errors, [], 'the console stays empty');
    assert.deepEqual(await page.evaluate(() => probe.notes), []);
  }));
