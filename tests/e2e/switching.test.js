/**
 * Tests changing the effect during a call: at one frame, confirmed, in the same session, and
 * without a single unprocessed frame.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { open, PATIENCE_MS } from './harness.js';
import { assertHidden, assertInOrder, hiddenBy } from './judge.js';

/**
 * Effects to change to, and how their frames may look: a style and boxes may be preceded by their
 * placeholder.
 */
const PAINTING = { effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '180p' }, ways: ['painted', 'blurred'] };
const BLUR = { effect: 'background_blur', params: {}, ways: ['blurred'] };
const FACES = { effect: 'face_detection', params: {}, ways: ['framed', 'painted', 'blurred'] };

let session;
before(async () => (session = await open({})));
after(() => session?.end());

const since = ({ rtp }, timestamp) => ((rtp - timestamp) | 0) >= 0;

test('every change is at one frame and nothing raw is ever shown', async () => {
  const { played, connect, changeEffect, seen, page, gateway, close } = session;
  const id = await connect({ effect: BLUR.effect, params: BLUR.params, codec: 'vp8' });
  await session.moreFrames(5);
  const changes = [];
  for (const wanted of [PAINTING, BLUR, FACES, BLUR, PAINTING, FACES, PAINTING, BLUR, FACES, PAINTING, BLUR, PAINTING]) {
    const { ack } = await changeEffect(wanted.effect, wanted.params);
    assert.equal(ack.effect, wanted.effect);
    changes.push({ ...wanted, ack });
    // Waits for the frames with the change, and for one that shows the effect itself: it may be preceded by placeholders.
    await page.waitForFunction((rtp) => probe.seen.output.filter((record) => ((record.rtp - rtp) | 0) >= 0).length >= 4, ack.timestamp, { timeout: PATIENCE_MS });
    const isProper = async () => (await seen()).some((record) => since(record, ack.timestamp) && hiddenBy(record, played) === wanted.ways[0]);
    for (const deadline = Date.now() + PATIENCE_MS; !(await isProper()); ) {
      assert.ok(Date.now() < deadline, `no frame is ${wanted.ways[0]} after the change to ${wanted.effect}`);
      await page.waitForTimeout(100);
    }
  }
  const records = await seen();
  const state = await page.evaluate(() => [probe.kept.output.id, probe.kept.output.state, probe.kept['output.pc'].connectionState]);
  assert.deepEqual(state, [id, 'live', 'connected']);
  const { sessions } = await (await fetch(new URL('api/sessions', gateway.url))).json();
  assert.equal(sessions.length, 1, 'no second session was made');
  await close();

  assertInOrder(records, played, { readable: 0.8 });
  const sequences = changes.map(({ ack }) => ack.first_sequence);
  assert.deepEqual(sequences, sequences.toSorted((a, b) => a - b), 'the acks come in the order of the changes');
  assertHidden(records.filter((record) => !since(record, changes[0].ack.timestamp)), played, BLUR.ways);
  changes.forEach(({ effect, ways, ack }, index) => {
    const next = changes[index + 1]?.ack.timestamp;
    const shown = records.filter((record) => since(record, ack.timestamp) && (next === undefined || !since(record, next)));
    assert.ok(shown.length > 0, `change ${index} to ${effect} is shown`);
    assertHidden(shown, played, ways);
    const proper = ways[0];
    assert.ok(shown.some((record) => hiddenBy(record, played) === proper), `change ${index}: some frame is ${proper}`);
  });
});

test('changes that overtake each other end at the last one, and nothing raw is shown', async () => {
  const { played, connect, moreFrames, seen, page, close } = session;
  await connect({ effect: BLUR.effect, codec: 'h264' });
  await moreFrames(5);
  const acks = await page.evaluate(
    async (wanted) => {
      const acks = [];
      for (let turn = 0; turn < 30; turn++) {
        const { effect, params } = wanted[turn % wanted.length];
        acks.push(probe.kept.output.changeEffect(effect, params));
        await new Promise((resolve) => setTimeout(resolve, 15));
      }
      return Promise.all(acks);
    },
    [PAINTING, FACES, BLUR],
  );
  const sequences = acks.map((ack) => ack.first_sequence);
  assert.deepEqual(sequences, sequences.toSorted((a, b) => a - b));
  await page.waitForFunction((rtp) => probe.seen.output.filter((record) => ((record.rtp - rtp) | 0) >= 0).length >= 10, acks.at(-1).timestamp, { timeout: PATIENCE_MS });
  const records = await seen();
  await close();
  assertInOrder(records, played, { readable: 0.8 });
  assertHidden(records, played, ['blurred', 'painted', 'framed']);
  assertHidden(records.filter(({ rtp }) => ((rtp - acks.at(-1).timestamp) | 0) >= 0), played, BLUR.ways);
});

test('a change of parameters is seen from the frame of its ack on', async () => {
  const { played, connect, moreFrames, changeEffect, seen, page, close } = session;
  await connect({ effect: 'background_blur', params: { strength: 0 } });
  await moreFrames(20);
  const { ack } = await changeEffect('background_blur', { strength: 1 });
  assert.equal(ack.params.strength, 1);
  await page.waitForFunction((rtp) => probe.seen.output.filter((record) => ((record.rtp - rtp) | 0) >= 0).length >= 20, ack.timestamp, { timeout: PATIENCE_MS });
  const records = await seen();
  await close();
  const median = (list) => list.map(({ energy }) => energy).toSorted((a, b) => a - b)[list.length >> 1];
  const [weak, strong] = [false, true].map((later) => records.filter(({ rtp }) => ((rtp - ack.timestamp) | 0) >= 0 === later));
  assert.ok(median(strong) < 0.6 * median(weak), `the edges that are left fall from ${median(weak)} to ${median(strong)}`);
  assertHidden(records, played, BLUR.ways);
});

test('what the gateway cannot do is refused by name, and the call goes on as it was', async () => {
  const { played, connect, moreFrames, page, seen, close } = session;
  await connect({ effect: BLUR.effect });
  await moreFrames(5);
  const refused = (effect, params) => page.evaluate(([effect, params]) => probe.kept.output.changeEffect(effect, params).then(() => 'accepted', ({ code, detail }) => ({ code, detail })), [effect, params]);
  const unknown = await refused('moustache', {});
  assert.equal(unknown.code, 'effect-rejected');
  assert.match(unknown.detail, /moustache/);
  const parameter = await refused('background_blur', { strength: 7 });
  assert.equal(parameter.code, 'effect-rejected');
  assert.match(parameter.detail, /strength/);
  await moreFrames(20);
  const records = await seen();
  await close();
  assertHidden(records, played, BLUR.ways);
});
