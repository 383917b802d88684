/**
 * Tests of offers that other applications make: lines for one direction, several video lines,
 * simulcast, codecs that Ooblex does not speak, and other ways to write SDP. The offers are made by
 * Chromium, most of them edited before they are sent, and Chromium must accept the answers.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { becomes, open, PATIENCE_MS } from './harness.js';
import { relayed } from './relay.js';

const [WIDTH, HEIGHT] = [1280, 720];

let opened;
before(async () => {
  opened = await open({ width: WIDTH, height: HEIGHT });
  await opened.page.evaluate(`Object.assign(globalThis, { go: ${go}, counts: ${counts} })`);
});
after(() => opened?.end());

/**
 * Runs in the page: sends an offer and applies the answer. `edit` changes the offer, `restore` the
 * answer; `prepare` adds lines before the one of the camera, `more` after it. Keeps the connection as
 * `globalThis.call`, and what came over the data channel in its `heard`.
 */
async function go({ edit = (sdp) => sdp, restore = (sdp) => sdp, encodings, codecs, effect = 'none', direction = 'sendrecv', prepare, more, data } = {}) {
  globalThis.call?.pc.close();
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const call = (globalThis.call = { pc, heard: [] });
  prepare?.(pc);
  const line = pc.addTransceiver(direction === 'recvonly' ? 'video' : probe.camera.getVideoTracks()[0], { direction, ...(encodings && { sendEncodings: encodings }) });
  if (codecs) line.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => codecs.test(mimeType)));
  more?.(pc);
  if (data) pc.createDataChannel('control').onmessage = (message) => call.heard.push(JSON.parse(message.data));
  call.line = line;
  // Otherwise a busy browser sends smaller layers.
  if (encodings) await line.sender.setParameters({ ...line.sender.getParameters(), degradationPreference: 'maintain-resolution' });
  await pc.setLocalDescription();
  const response = await fetch('/offer', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ type: 'offer', effect, sdp: edit(pc.localDescription.sdp) }) });
  const answer = await response.json();
  if (response.ok) await pc.setRemoteDescription({ type: 'answer', sdp: restore(answer.sdp) });
  return { status: response.status, ...answer, lines: pc.getTransceivers().map(({ currentDirection }) => currentDirection) };
}

/** Runs in the page: returns the frames of video that have come, and the size of the last. */
async function counts() {
  const inbound = [...(await globalThis.call.pc.getStats()).values()].filter(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
  const [most] = inbound.sort((one, other) => (other.framesDecoded ?? 0) - (one.framesDecoded ?? 0));
  return { frames: most?.framesDecoded ?? 0, width: most?.frameWidth, height: most?.frameHeight };
}

/** Waits for this number of further frames; with a width, for frames of this width. Returns the counts. */
async function come(frames, width = null) {
  const { page } = opened;
  const first = await page.evaluate(() => counts());
  const reached = async ([first, frames, width]) => {
    const now = await counts();
    return now.frames - first >= frames && (!width || now.width === width) && now;
  };
  try {
    return await becomes(page, reached, [first.frames, frames, width]);
  } catch (error) {
    const log = opened.gateway.log().split('\n').slice(-10).join('\n');
    throw new Error(`${frames} frames of width ${width}: ${error.message} ${JSON.stringify(await page.evaluate(() => counts()))}\n${log}`);
  }
}

const evaluate = (body) => opened.page.evaluate(body);

async function assertComes(answer, lines = ['sendrecv']) {
  assert.equal(answer.status, 200, answer.detail);
  assert.deepEqual(answer.lines, lines);
  return come(20);
}

function assertRefused(answer, kind, ...patterns) {
  assert.equal(answer.status, 422, answer.sdp);
  assert.equal(answer.type, `urn:ooblex:problem:${kind}`);
  for (const pattern of patterns) assert.match(answer.detail, pattern);
}

test('several bandwidth lines', async () => {
  await assertComes(await evaluate(() => go({ edit: (s) => s.replace(/(m=video[^]*?c=IN[^\r]*\r\n)/, '$1b=AS:2000\r\nb=TIAS:2000000\r\n') })));
});

test('no direction means sendrecv', async () => {
  await assertComes(await evaluate(() => go({ edit: (s) => s.replace(/a=sendrecv\r\n/g, '') })));
});

test('lines that end with LF only', async () => {
  await assertComes(await evaluate(() => go({ edit: (s) => s.replaceAll('\r\n', '\n') })));
});

test('addresses and keys in the session part', async () => {
  await assertComes(
    await evaluate(() =>
      go({
        edit: (s) => {
          const [moved, rest] = [[], []];
          for (const line of s.split('\r\n')) (/^a=(ice-|fingerprint|setup)/.test(line) ? moved : rest).push(line);
          return rest.join('\r\n').replace(/(?=m=)/, `${moved.join('\r\n')}\r\n`);
        },
      }),
    ),
  );
});

test('titles, no rtcp lines, and the older name of the protocol', async () => {
  const edit = (s) => s.replace(/(m=video[^\r]*\r\n)/, '$1i=the camera\r\n').replace(/a=rtcp:[^\r]*\r\n/g, '').replace('s=-', 's= \r\ni=about\r\nb=AS:9000').replace('UDP/TLS/RTP/SAVPF', 'RTP/SAVPF');
  const answer = await opened.page.evaluate(`go({ edit: ${edit}, restore: (s) => s.replace('RTP/SAVPF', 'UDP/TLS/RTP/SAVPF') })`);
  await assertComes(answer);
});

test('a line without identifier and bundle', async () => {
  // The browser, which has offered both, gets an answer with both.
  const restore = (s) => s.replace('t=0 0', 't=0 0\r\na=group:BUNDLE 0').replace('c=IN', 'a=mid:0\r\nc=IN');
  const answer = await opened.page.evaluate(`go({ edit: (s) => s.replace(/a=(mid|group):[^\\r]*\\r\\n/g, ''), restore: ${restore} })`);
  assert.doesNotMatch(answer.sdp ?? '', /a=(mid|group):/);
  await assertComes(answer);
});

for (const [setup, role] of [['active', 'passive'], ['passive', 'active']]) {
  test(`an offerer that insists on setup:${setup}`, async () => {
    const answer = await opened.page.evaluate(`go({ edit: (s) => s.replaceAll('setup:actpass', 'setup:${setup}') })`);
    assert.match(answer.sdp ?? '', new RegExp(`a=setup:${role}\r\n`));
    await assertComes(answer);
  });
}

test('H.264 without a profile', async () => {
  await assertComes(await evaluate(() => go({ codecs: /H264|rtx/i, edit: (s) => s.replace(/;profile-level-id=42001f/g, ''), restore: (s) => s.replace(/(packetization-mode=1)(?!;profile)/g, '$1;profile-level-id=42001f') })));
});

test('H.264 of the profile that Safari prefers', async () => {
  const answer = await evaluate(() => go({ codecs: /H264/i, edit: (s) => s.replace(/profile-level-id=\w+/g, 'profile-level-id=640c34'), restore: (s) => s.replaceAll('640c34', '42001f') }));
  assert.match(answer.sdp ?? '', /a=rtpmap:\d+ H264/);
  await assertComes(answer);
});

test('H.264 of a foreign profile is refused by name', async () => {
  const answer = await evaluate(() => go({ edit: (s) => s.replace(/profile-level-id=\w+/g, 'profile-level-id=f4001f').replace(/ (VP8|VP9|AV1)\//g, ' X$1/') }));
  assertRefused(answer, 'no-common-codec', /High 4:4:4 Predictive \(f4001f\)/, /VP8 and H\.264/, /profile Baseline, Main or High/);
});

for (const codec of ['VP9', 'AV1']) {
  test(`${codec} alone is refused, and the encoder to choose is named`, async () => {
    assertRefused(await opened.page.evaluate(`go({ codecs: /${codec}/ })`), 'no-common-codec', new RegExp(`the offer has ${codec};`), /choose VP8 or H\.264 as the video encoder/);
  });
}

test('an audio line without a common codec is refused, and the video works', async () => {
  const answer = await evaluate(() =>
    go({ more: (pc) => pc.addTransceiver('audio').setCodecPreferences(RTCRtpReceiver.getCapabilities('audio').codecs.filter(({ mimeType }) => /PCMU/i.test(mimeType))) }),
  );
  assert.match(answer.sdp ?? '', /m=audio 0 UDP\/TLS\/RTP\/SAVPF 0\r\n/);
  assert.match(answer.sdp, /a=group:BUNDLE 0\r\n/);
  // A line that was refused is gone.
  await assertComes(answer, ['sendrecv']);
});

test('a second camera is refused on its line, and the first works', async () => {
  const answer = await evaluate(() => go({ more: (pc) => pc.addTransceiver(probe.camera.getVideoTracks()[0].clone(), { direction: 'sendrecv' }) }));
  assert.match(answer.sdp ?? '', /m=video 0 /);
  // A line that was refused is gone.
  await assertComes(answer, ['sendrecv']);
});

test('sendonly: nothing comes back but what the effect finds', async () => {
  const answer = await evaluate(() => go({ direction: 'sendonly', effect: 'face_detection', data: true }));
  assert.equal(answer.status, 200, answer.detail);
  assert.deepEqual(answer.lines, ['sendonly']);
  await opened.page.waitForFunction(() => globalThis.call.heard.filter(({ type }) => type === 'detections').length >= 10, null, { timeout: PATIENCE_MS });
  const { heard, inbound } = await evaluate(async () => ({ heard: globalThis.call.heard, inbound: [...(await globalThis.call.pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp') }));
  assert.deepEqual(inbound, []);
  assert.ok(heard.some(({ type, faces }) => type === 'detections' && faces?.length > 0), JSON.stringify(heard.slice(0, 3)));
});

test('recvonly alone has nothing to show', async () => {
  assertRefused(await evaluate(() => go({ direction: 'recvonly' })), 'no-video', /recvonly/, /add a camera track/);
});

test('one line for each direction, in both orders', async () => {
  const receiving = (pc) => pc.addTransceiver('video', { direction: 'recvonly' });
  await assertComes(await opened.page.evaluate(`go({ direction: 'sendonly', more: ${receiving}, data: true })`), ['sendonly', 'recvonly']);
  await assertComes(await opened.page.evaluate(`go({ direction: 'sendonly', prepare: ${receiving} })`), ['recvonly', 'sendonly']);
});

const LAYERS = [{ rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' }];

/** Switches a layer of the simulcast on or off. */
const setActive = (rid, active) =>
  opened.page.evaluate(
    async ([rid, active]) => {
      const parameters = globalThis.call.line.sender.getParameters();
      parameters.encodings.find((encoding) => encoding.rid === rid).active = active;
      await globalThis.call.line.sender.setParameters(parameters);
    },
    [rid, active],
  );

test('simulcast: the largest layer comes back, and when it stops the next', async () => {
  const answer = await opened.page.evaluate(`go({ encodings: ${JSON.stringify(LAYERS)}, data: true })`);
  assert.equal(answer.status, 200, answer.detail);
  await come(30, WIDTH);
  await setActive('q', false);
  await come(60, WIDTH);
  await setActive('f', false);
  await come(30, WIDTH / 2);
  await setActive('f', true);
  await come(30, WIDTH);
});

test('simulcast at 2 % loss: frames of the full size come back', async () => {
  const relay = await relayed(opened.page, { loss: 0.02, delayMs: 20 });
  try {
    const answer = await opened.page.evaluate(`go({ encodings: ${JSON.stringify(LAYERS)} })`);
    assert.equal(answer.status, 200, answer.detail);
    await come(30, WIDTH);
    await setActive('q', false);
    await come(150, WIDTH);
    assert.ok(relay.lost > 0.01 * relay.passed, `${relay.lost} lost, ${relay.passed} passed`);
  } finally {
    relay.close();
    await opened.page.unroute('**/offer');
  }
});
