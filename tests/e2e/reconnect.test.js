/**
 * Tests that a lost connection is restored by itself while the last picture stays, and that the
 * source can change without a reconnect.
 */

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { clip } from './clip.js';
import { PATIENCE_MS, openPage, startBrowser, startGateway } from './harness.js';
import { assertHidden } from './judge.js';
import { measure } from './measure.js';

const patience = { timeout: PATIENCE_MS };

/** Makes a gateway on a port on which it can be restarted, a browser, and a page with a session. */
async function withRestartable(options, use) {
  const played = clip({ width: 640, height: 480, measure });
  let gateway = await startGateway();
  const port = new URL(gateway.url).port;
  const browser = await startBrowser(played);
  const restart = async (signal) => {
    await gateway.stop(signal);
    gateway = await startGateway(['--listen', `127.0.0.1:${port}`]);
    return gateway;
  };
  try {
    const opened = await openPage(browser, gateway, played);
    const id = await opened.connect({ effect: 'background_blur', params: { strength: 0.9 }, ...options });
    await opened.moreFrames(10);
    return await use({ ...opened, played, id, restart, stop: (signal) => gateway.stop(signal), gateway: () => gateway });
  } finally {
    await browser.close();
    await gateway.stop();
  }
}

/**
 * Shows the session in a video element, and measures it with each picture that the screen draws.
 */
const show = (page) =>
  page.evaluate(async () => {
    const video = Object.assign(document.createElement('video'), { autoplay: true, muted: true, playsInline: true, srcObject: probe.kept.output.output });
    document.body.append(video);
    await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 24 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const looks = (probe.kept.looks = []);
    probe.keep('stream', probe.kept.output.output);
    const look = () => {
      context.clearRect(0, 0, 32, 24);
      context.drawImage(video, 0, 0, 32, 24);
      const { data } = context.getImageData(0, 0, 32, 24);
      // Counts bright pixels: the clip has a white cell at its top and a bright room; an empty
      // picture has none.
      looks.push({ state: probe.kept.output.state, bright: data.filter((value, index) => index % 4 === 1 && value > 100).length, ended: video.ended });
      if (probe.kept.output.state !== 'closed') requestAnimationFrame(look);
    };
    look();
  });

for (const signal of ['SIGKILL', 'SIGTERM']) {
  test(`after ${signal} and a start on the same port the session is back, with its effect, and never without a picture`, () =>
    withRestartable({}, async ({ page, id, restart, played, errors }) => {
      await show(page);
      await page.evaluate(() => {
        probe.kept.story = [];
        for (const name of ['state', 'reconnecting', 'reconnected']) probe.kept.output.on(name, (detail) => probe.kept.story.push([name, typeof detail === 'string' ? detail : { ...detail, error: detail.error?.code }]));
      });
      const gateway = await restart(signal);
      await page.waitForFunction(() => probe.kept.story.some(([name]) => name === 'reconnected'), null, patience);
      const after = await page.evaluate(() => {
        const { id, state, effect, params, output } = probe.kept.output;
        probe.watch('after', output.getVideoTracks()[0].clone());
        return { id, state, effect, strength: params.strength, same: output === probe.kept.stream, tracks: output.getTracks().length };
      });
      assert.deepEqual(after, { id: after.id, state: 'live', effect: 'background_blur', strength: 0.9, same: true, tracks: 1 });
      assert.notEqual(after.id, id);
      const { sessions } = await (await fetch(new URL('api/sessions', gateway.url))).json();
      assert.deepEqual(sessions.map(({ id, effect, params }) => [id, effect, params.strength]), [[after.id, 'background_blur', 0.9]]);

      await page.waitForFunction(() => probe.seen.after.length >= 15, null, patience);
      assertHidden(await page.evaluate(() => probe.seen.after), played, ['blurred']);
      const before = await page.evaluate(() => probe.kept.looks.length);
      await page.waitForFunction((before) => probe.kept.looks.length > before + 10, before, patience);
      const looks = await page.evaluate(() => probe.kept.looks);
      assert.ok(looks.some(({ state }) => state === 'reconnecting'));
      assert.deepEqual(looks.filter(({ bright, ended }) => bright < 20 || ended), [], 'the element always shows a picture');

      const story = await page.evaluate(() => probe.kept.story);
      const tries = story.filter(([name]) => name === 'reconnecting').map(([, { attempt }]) => attempt);
      assert.deepEqual(tries, tries.map((_, index) => index + 1));
      assert.equal(story.at(-1)[0], 'reconnected');
      assert.equal(story.at(-1)[1].attempts, tries.length);
      const ack = await page.evaluate(() => probe.kept.output.changeEffect('none'));
      assert.equal(ack.effect, 'none');
      assert.deepEqual(errors.filter((text) => !/ERR_CONNECTION_REFUSED|404/.test(text)), []);
    }));
}

// An SDK takes 17 s until it counts a gateway that says nothing as lost.
describe('a gateway that is gone', { concurrency: true }, () => {
  test('a change that is asked for while there is no gateway is what the session comes back with', () =>
    withRestartable({}, async ({ page, stop, restart }) => {
      await stop('SIGKILL');
      await page.evaluate(() => {
        probe.kept.change = probe.kept.output.changeEffect('style_transfer', { resolution: '180p' });
        probe.kept.change.catch(() => {});
      });
      await page.waitForFunction(() => probe.kept.output.state === 'reconnecting', null, patience);
      const gateway = await restart();
      const ack = await page.evaluate(() => probe.kept.change);
      assert.equal(ack.effect, 'style_transfer');
      const { sessions } = await (await fetch(new URL('api/sessions', gateway.url))).json();
      assert.deepEqual(sessions.map(({ effect }) => effect), ['style_transfer']);
    }));

  test('a session that is ended through the API does not come back, and one that gives up says so', () =>
    withRestartable({ reconnect: { giveUpAfterMs: 1 } }, async ({ page, id, gateway, stop, connect, heard }) => {
      await fetch(new URL(`api/sessions/${id}`, gateway().url), { method: 'DELETE' });
      await page.waitForFunction(() => probe.kept['output.close'].length > 0, null, patience);
      assert.equal((await heard('close'))[0].error.code, 'closed');
      await connect({ effect: 'none', reconnect: { giveUpAfterMs: 1 } }, 'second');
      await stop('SIGKILL');
      await page.waitForFunction(() => probe.kept['second.close'].length > 0, null, patience);
      assert.equal((await heard('close', 'second'))[0].error.code, 'gave-up');
    }));
});

test('screen, file, microphone and camera follow each other in one connection', () =>
  withRestartable({ effect: 'none', params: {} }, async ({ page, id, moreFrames, played }) => {
    const size = (width, height) => page.waitForFunction(([width, height]) => probe.seen.output.at(-1)?.shown === `${width}x${height}`, [width, height], patience);
    const state = () =>
      page.evaluate(() => {
        const { id, input, output } = probe.kept.output;
        const kinds = (stream) => stream.getTracks().map(({ kind }) => kind).sort();
        return { id, input: kinds(input), output: kinds(output) };
      });
    // Makes a video of a moving square.
    await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
      const context = canvas.getContext('2d');
      const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: 'video/webm;codecs=vp8' });
      const parts = [];
      recorder.ondataavailable = ({ data }) => parts.push(data);
      recorder.start();
      for (let step = 0; step < 20; step++) {
        context.fillStyle = `hsl(${step * 18} 80% 50%)`;
        context.fillRect(0, 0, 320, 240);
        await new Promise(requestAnimationFrame);
      }
      recorder.stop();
      await new Promise((resolve) => (recorder.onstop = resolve));
      await probe.kept.output.useFile(new File(parts, 'film.webm', { type: 'video/webm' }));
    });
    await size(320, 240);
    await page.evaluate(() => probe.kept.output.useMicrophone());
    assert.deepEqual(await state(), { id, input: ['audio', 'video'], output: ['audio', 'video'] });
    await page.evaluate(() => probe.kept.output.useCamera({ width: { exact: 640 }, height: { exact: 480 } }));
    await size(played.width, played.height);
    await moreFrames(5);
    assert.deepEqual(await state(), { id, input: ['audio', 'video'], output: ['audio', 'video'] });
    await page.evaluate(() => probe.kept.output.useMicrophone(false));
    // A muted picture is black, which hides the clip's numbers.
    await page.evaluate(() => probe.kept.output.mute('video'));
    await page.waitForFunction(() => probe.seen.output.slice(-5).every(({ number }) => number === null), null, patience);
    await page.evaluate(() => probe.kept.output.mute('video', false));
    await page.waitForFunction(() => probe.seen.output.at(-1).number !== null, null, patience);
    assert.deepEqual(await state(), { id, input: ['video'], output: ['video'] });
    const refused = await page.evaluate(() => probe.kept.output.useFile(new File(['no film'], 'letter.txt')).catch(({ code, message }) => ({ code, message })));
    assert.equal(refused.code, 'file-unreadable');
    assert.match(refused.message, /letter\.txt/);
  }));
