/**
 * Tests in Firefox of what may differ there: the page, the SDK on a page of another origin, and
 * connections without the SDK. Firefox gives no access to the frames of a track, so the frames that
 * an element shows are judged; and without its H.264 plugin it speaks only VP8 here.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { clip } from './clip.js';
import { FIREFOX, filmOf, serveElsewhere, startFirefox } from './firefox.js';
import { PATIENCE_MS, startGateway, withLog } from './harness.js';
import { assertHidden, assertInOrder, assertUntouched, figures } from './judge.js';
import { measure } from './measure.js';

const skip = FIREFOX ? false : 'there is no Firefox: install the package firefox-esr, or name one in FIREFOX';
const firefox = (name, run) =>
  test(name, { skip }, async (t) => {
    try {
      await run(t);
    } catch (error) {
      throw withLog(error, gateway);
    }
  });

/** As in source.test.js. */
const SILENT_WITHIN_MS = 3_000;
/** Codecs leave more than this share of the energy of the background's edges in a sharp picture. */
const SHARP = 0.7;

/** Firefox makes no connection to 127.0.0.1, where the gateways of other tests are. */
const MEDIA = ['--media', '0.0.0.0:0'];

let gateway, browser, elsewhere, played, film, folder, config, here;
before(async () => {
  if (skip) return;
  played = clip({ width: 640, height: 480, measure });
  film = filmOf(played);
  elsewhere = await serveElsewhere(film);
  folder = mkdtempSync(join(tmpdir(), 'ooblex-firefox-'));
  config = join(folder, 'ooblex.toml');
  writeFileSync(config, `[serve]\nallow_origins = ["${elsewhere.origin}"]\n`);
  gateway = await startGateway([...MEDIA, '--config', config]);
  browser = await startFirefox();
  here = await openElsewhere(gateway);
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
  elsewhere?.close();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

/** Opens a page of another origin with the SDK of this gateway, the film as `film`, and the functions below. */
async function openElsewhere({ url }) {
  const opened = await browser.page(`${elsewhere.origin}/`);
  await opened.evaluate(
    async ({ url, layout }) => {
      window.gateway = url;
      probe.layout = layout;
      window.sdk = await import(new URL('sdk/ooblex.js', url).href);
      window.film = await sdk.openFile(await (await fetch('/film.webm')).blob());
      // The connection of the newest session.
      const Connection = RTCPeerConnection;
      window.RTCPeerConnection = class extends Connection {
        constructor(...given) {
          super(...given);
          window.connection = this;
        }
      };
    },
    { url, layout: played.layout },
  );
  await opened.evaluate(`Object.assign(window, { begin: ${begin}, go: ${go}, post: ${post}, inbound: ${inbound}, pause: ${pause}, drawing: ${drawing} })`);
  return opened;
}

/** Runs in the page: begins a session whose output is watched, with what it tells in `told`. */
async function begin(options) {
  await window.session?.close();
  window.session = await sdk.connect({ source: film, ...options });
  window.told = [];
  for (const name of ['source', 'state', 'reconnected', 'close']) session.on(name, (detail) => told.push({ name, t: performance.now(), state: name === 'source' ? detail.state : detail }));
  probe.watch('output', session.output.getVideoTracks()[0]);
}

/**
 * Runs in the page: sends an offer and applies the answer. Keeps the connection as `call`, and what
 * came over the data channel in its `heard`.
 */
async function go({ edit = (sdp) => sdp, encodings, codecs, effect = 'none', direction = 'sendrecv', prepare, more, data, policy = 'max-bundle' } = {}) {
  window.call?.pc.close();
  const pc = new RTCPeerConnection({ bundlePolicy: policy });
  const call = (window.call = { pc, heard: [] });
  prepare?.(pc);
  call.line = pc.addTransceiver(direction === 'recvonly' ? 'video' : film.getVideoTracks()[0], { direction, ...(encodings && { sendEncodings: encodings }) });
  if (codecs) call.line.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => codecs.test(mimeType)));
  more?.(pc);
  if (data) pc.createDataChannel('control').onmessage = (message) => call.heard.push(JSON.parse(message.data));
  await pc.setLocalDescription();
  const response = await fetch(new URL('offer', gateway), { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ type: 'offer', effect, sdp: edit(pc.localDescription.sdp) }) });
  const answer = await response.json();
  if (response.ok) await pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
  return { status: response.status, ...answer, lines: pc.getTransceivers().map(({ currentDirection }) => currentDirection) };
}

/** Runs in the page: posts the offer of a connection to WHIP or WHEP; returns the session's address. */
async function post(connection, path) {
  await connection.setLocalDescription();
  const response = await fetch(new URL(path, gateway), { method: 'POST', body: connection.localDescription.sdp, headers: { 'Content-Type': 'application/sdp' } });
  if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
  const session = new URL(response.headers.get('Location'), response.url).href;
  await connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  return session;
}

/** Runs in the page: returns what a connection has received of a kind. */
async function inbound(pc, kind = 'video') {
  return [...(await pc.getStats()).values()].find((entry) => entry.type === 'inbound-rtp' && entry.kind === kind);
}

/** Runs in the page: switches the film off and on. */
function pause(paused) {
  window.valve ??= film.getVideoTracks()[0];
  valve.enabled = !paused;
}

/** Runs in the page: returns a drawing of this size, of which `draw` makes a frame. */
function drawing(width, height) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { alpha: false });
  let number = 0;
  const draw = () => {
    context.fillStyle = ++number % 2 ? '#304050' : '#405060';
    context.fillRect(0, 0, canvas.width, canvas.height);
  };
  const timer = setInterval(draw, 50);
  return { canvas, stop: () => clearInterval(timer), stream: canvas.captureStream(20) };
}

/** Returns the frames of a watched track when there are `count`. */
async function seen(name, count, page = here) {
  await page.waitFor(({ name, count }) => probe.seen[name]?.length >= count, { name, count });
  return page.evaluate((name) => probe.seen[name], name);
}

/** Waits until `count` frames with a settings change of this time stamp have been seen; returns them. */
async function since({ timestamp }, count) {
  await here.waitFor(({ timestamp, count }) => probe.seen.output.filter(({ rtp }) => ((rtp - timestamp) | 0) >= 0).length >= count, { timestamp, count });
  return here.evaluate((timestamp) => probe.seen.output.filter(({ rtp }) => ((rtp - timestamp) | 0) >= 0), timestamp);
}

const change = (effect, params) => here.evaluate(({ effect, params }) => session.changeEffect(effect, params), { effect, params });

firefox('the page: a film with an effect, statistics, a recording, a hidden picture, the width of a phone', async () => {
  const { page, errors, requests, evaluate, waitFor } = await browser.page(new URL('?effect=background_blur', gateway.url).href);
  await evaluate((layout) => {
    probe.layout = layout;
    probe.watch('output', document.querySelector('#output'));
    window.saved = [];
    const { createObjectURL } = URL;
    URL.createObjectURL = (blob) => {
      if (blob.type && !(blob instanceof File)) saved.push({ type: blob.type.split(';')[0], size: blob.size });
      return createObjectURL.call(URL, blob);
    };
  }, played.layout);
  await waitFor(() => !document.querySelector('#start').disabled);
  await (await page.$('#file')).uploadFile(film);
  const records = await seen('output', 60, { waitFor, evaluate });
  assertHidden(records, played, ['blurred']);
  assertInOrder(records, played);
  await page.click('#record');
  await waitFor(() => document.querySelector('#verdict').dataset.part !== 'none');
  const figure = (title) => [...document.querySelectorAll('#figures div')].find((tile) => tile.querySelector('dt').textContent === title).querySelector('dd').textContent;
  await waitFor(`['Camera', 'Sent', 'Analysed', 'Shown', 'Round trip', 'Bitrate'].every((title) => /\\d/.test((${figure})(title)))`);
  await evaluate(() => new Promise((resolve) => setTimeout(resolve, 1_500)));
  await page.click('#record');
  await waitFor(() => saved.length === 1 && document.querySelector('#record').ariaPressed === 'false');
  const [recording] = await evaluate(() => saved);
  assert.equal(recording.type, 'video/webm');
  assert.ok(recording.size > 20_000, `${recording.size} bytes`);
  await page.click('#mute');
  await waitFor(() => /hidden/.test(document.querySelector('#verdict').textContent));
  assert.equal(await evaluate(() => ooblex.session.sourceState), 'live');
  await page.click('#mute');
  await page.setViewport({ width: 390, height: 844 });
  await waitFor(() => innerWidth === 390 || document.documentElement.clientWidth <= 390);
  const wide = await evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  await evaluate(() => document.querySelector('#stop').click());
  await waitFor(() => document.querySelector('#status').dataset.state === 'idle');
  assert.deepEqual(requests.filter((asked) => !asked.startsWith(gateway.url) && !/^(blob|data):/.test(asked)), [], 'requests to other hosts');
  assert.deepEqual(errors, []);
  await page.close();
});

firefox('the SDK on a page of another origin: each effect from its first frame on, in order', async () => {
  await here.evaluate(() => begin({ effect: 'background_blur' }));
  const first = await seen('output', 60);
  assertHidden(first, played, ['blurred']);
  const none = await since(await change('none'), 30);
  const painted = await since(await change('invert'), 30);
  const blurred = await since(await change('background_blur', { strength: 0.2 }), 30);
  assertHidden(painted.slice(0, 30), played, ['painted', 'blurred']);
  assertHidden(blurred, played, ['blurred']);
  assertUntouched(none.slice(0, 30), played);
  assertInOrder(await here.evaluate(() => probe.seen.output), played, { readable: 0.8 });
  const { code, message } = await here.evaluate(() => session.changeEffect('no_such_effect').catch(({ code, message }) => ({ code, message })));
  assert.deepEqual([code, /no_such_effect/.test(message)], ['effect-rejected', true]);
  const { roundTripMs, sent, received } = await here.evaluate(async () => {
    await session.measure();
    await new Promise((resolve) => setTimeout(resolve, 500));
    return session.measure();
  });
  assert.deepEqual([received.codec, received.lostShare], ['VP8', 0]);
  assert.ok(roundTripMs >= 0 && sent.width > 0 && received.width > 0 && sent.fps > 5 && received.fps > 5 && received.bitrateBps > 0 && received.jitterBufferMs >= 0, JSON.stringify({ roundTripMs, sent, received }));
  await here.evaluate(() => session.close());
});

firefox('a codec that this Firefox has not is refused by name', async () => {
  const refused = await here.evaluate(async () => {
    if (RTCRtpReceiver.getCapabilities('video').codecs.some(({ mimeType }) => mimeType === 'video/H264')) return null;
    return sdk.connect({ source: film, codec: 'h264' }).catch(({ code, message }) => ({ code, message }));
  });
  if (refused) assert.deepEqual([refused.code, /h264/.test(refused.message)], ['offer-rejected', true]);
});

firefox('a publisher by WHIP and a viewer by WHEP, without the SDK', async () => {
  const answered = await here.evaluate(async () => {
    const sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    window.publisher = new RTCPeerConnection();
    for (const track of [film.getVideoTracks()[0], sound.getAudioTracks()[0]]) publisher.addTransceiver(track, { direction: 'sendonly' });
    publisher.session = await post(publisher, 'whip/studio?effect=background_blur');
    window.viewer = new RTCPeerConnection();
    const lines = ['video', 'audio'].map((kind) => viewer.addTransceiver(kind, { direction: 'recvonly' }));
    probe.watch('viewer', lines[0].receiver.track);
    viewer.session = await post(viewer, 'whep/studio');
    return performance.now();
  });
  const records = await seen('viewer', 60);
  assertHidden(records, played, ['blurred']);
  assertInOrder(records, played);
  assert.ok(records[0].t - answered < 5_000, `the first picture came after ${records[0].t - answered} ms`);
  assert.ok((await here.evaluate(async () => (await inbound(viewer, 'audio')).packetsReceived)) > 20);
  const ended = await here.evaluate(async () => {
    const of = async ({ session }) => (await fetch(session, { method: 'DELETE' })).status;
    return [await of(viewer), await of(publisher)];
  });
  assert.deepEqual(ended, [200, 200]);
});

/** Lines that are offered, and the directions that the browser has after the answer. */
const LINES = {
  'a camera, a microphone and a control channel on transports of their own': ['{ policy: "max-compat", data: true, more: (pc) => pc.addTransceiver("audio") }', ['sendrecv', 'sendrecv']],
  'sendonly and recvonly': ['{ direction: "sendonly", more: (pc) => pc.addTransceiver("video", { direction: "recvonly" }) }', ['sendonly', 'recvonly']],
  'recvonly and sendonly': ['{ direction: "sendonly", prepare: (pc) => pc.addTransceiver("video", { direction: "recvonly" }) }', ['recvonly', 'sendonly']],
  'a second camera, which is refused': ['{ more: (pc) => pc.addTransceiver(film.getVideoTracks()[0].clone()) }', ['sendrecv']],
  'audio without a common codec, which is refused': ['{ more: (pc) => pc.addTransceiver("audio").setCodecPreferences(RTCRtpReceiver.getCapabilities("audio").codecs.filter(({ mimeType }) => /PCMU/.test(mimeType))) }', ['sendrecv']],
  'two bandwidths and no direction': ['{ edit: (s) => s.replace(/(m=video[^]*?c=IN[^\\r]*\\r\\n)/, "$1b=AS:2000\\r\\nb=TIAS:2000000\\r\\n").replace(/a=sendrecv\\r\\n/g, "") }', ['sendrecv']],
};
for (const [name, [options, lines]] of Object.entries(LINES)) {
  firefox(`an offer without the SDK: ${name}`, async () => {
    const answer = await here.evaluate(`go(${options})`);
    assert.equal(answer.status, 200, answer.detail);
    await here.waitFor(async () => (await inbound(call.pc))?.framesDecoded >= 10);
    // A line that was refused is gone, and nothing else is.
    assert.deepEqual(await here.evaluate(() => call.pc.getTransceivers().map(({ currentDirection }) => currentDirection).filter((direction) => direction !== 'stopped')), lines);
    await here.evaluate(() => call.pc.close());
  });
}

firefox('sendonly: what the effect finds comes back, and no video', async () => {
  const answer = await here.evaluate(() => go({ direction: 'sendonly', effect: 'face_detection', data: true }));
  assert.deepEqual([answer.status, answer.lines], [200, ['sendonly']]);
  await here.waitFor(() => call.heard.some(({ type, faces }) => type === 'detections' && faces?.length));
  assert.equal(await here.evaluate(async () => await inbound(call.pc) ?? null), null);
  await here.evaluate(() => call.pc.close());
});

firefox('recvonly alone, and VP9 alone, are refused with a reason', async () => {
  const recvonly = await here.evaluate(() => go({ direction: 'recvonly' }));
  assert.deepEqual([recvonly.status, recvonly.type], [422, 'urn:ooblex:problem:no-video']);
  const foreign = await here.evaluate(() => go({ codecs: /VP9/ }));
  assert.deepEqual([foreign.status, foreign.type, /choose VP8/.test(foreign.detail)], [422, 'urn:ooblex:problem:no-common-codec', true]);
});

firefox('simulcast: the largest layer comes back, and when it stops the next', async () => {
  const answer = await here.evaluate(() => go({ encodings: [{ rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' }] }));
  assert.equal(answer.status, 200, answer.detail);
  const becomes = (width) => here.waitFor(async (width) => (await inbound(call.pc))?.frameWidth === width, width);
  const setActive = (active) =>
    here.evaluate(async (active) => {
      const parameters = call.line.sender.getParameters();
      parameters.encodings.find(({ rid }) => rid === 'f').active = active;
      await call.line.sender.setParameters(parameters);
    }, active);
  await becomes(640);
  await setActive(false);
  await becomes(320);
  await setActive(true);
  await becomes(640);
  await here.evaluate(() => call.pc.close());
});

/** Ways to switch a source off and on again, run in the page. */
const WAYS = {
  'no track': [() => connection.getSenders()[0].replaceTrack(null), () => connection.getSenders()[0].replaceTrack(film.getVideoTracks()[0])],
  'a track that has ended': [() => connection.getSenders()[0].track.stop(), () => session.replaceSource(film.clone())],
};
for (const [name, [off, on]] of Object.entries(WAYS)) {
  firefox(`a source that is off is reported, and sharp when it is back: ${name}`, async (t) => {
    await here.evaluate(() => begin({ effect: 'none', source: film.clone() }));
    await seen('output', 30);
    const is = (state) => here.waitFor((state) => told.findLast(({ name }) => name === 'source')?.state === state, state);
    const turn = (way) => here.evaluate(`(async () => { const t = performance.now(); await (${way})(); return t; })()`);
    const offAt = await turn(off);
    await is('silent');
    const silentAt = await here.evaluate(() => told.findLast(({ name }) => name === 'source').t);
    assert.ok(silentAt - offAt <= SILENT_WITHIN_MS, `reported after ${silentAt - offAt} ms`);
    const onAt = await turn(on);
    await is('live');
    const isSharp = (record) => record.t >= onAt && record.width === 640 && record.height === 480 && figures(record, played).energy >= SHARP;
    let records = await seen('output', 1);
    for (const until = Date.now() + PATIENCE_MS; !records.some(isSharp); records = await seen('output', records.length + 10)) assert.ok(Date.now() < until, 'it does not become sharp');
    const sharp = records.find(isSharp);
    t.diagnostic(`sharp ${Math.round(sharp.t - onAt)} ms after it was back`);
    const states = await here.evaluate(() => told.filter(({ name }) => name === 'source').map(({ state }) => state));
    assert.deepEqual(states.filter((state, index) => state !== states[index - 1]), ['silent', 'live']);
    await here.evaluate(() => session.close());
  });
}

firefox('a source that delivers nothing is reported, and a muted one is not', async () => {
  const states = await here.evaluate(async () => {
    const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const drawn = drawing(640, 480);
    await begin({ effect: 'none', source: drawn.stream });
    await later(1_000);
    session.mute('video');
    await later(4_000);
    session.mute('video', false);
    const muted = session.sourceState;
    await later(1_000);
    drawn.stop();
    return [muted, session.sourceState];
  });
  assert.deepEqual(states, ['live', 'live']);
  await here.waitFor(() => session.sourceState === 'silent');
  await here.evaluate(() => session.close());
});

firefox('a file goes on in a tab in the background', async () => {
  await here.evaluate(async () => {
    await begin({ effect: 'none' });
    window.rates = [];
    session.on('stats', ({ fps_in }) => document.hidden && rates.push(fps_in));
  });
  const front = await browser.page(`${elsewhere.origin}/`);
  await front.page.bringToFront();
  await here.waitFor(() => rates.length >= 5);
  const rates = await here.evaluate(() => session.close().then(() => rates));
  // A picture that is drawn by a timer has about one frame per second there.
  assert.ok(rates.filter((fps) => fps > 5).length >= 3, rates.join());
  await front.page.close();
  await here.page.bringToFront();
});

firefox('a source that is resized or turned, and a screen that is too large', async () => {
  await here.evaluate(() => {
    window.drawn = drawing(640, 480);
    return begin({ effect: 'background_blur', source: drawn.stream });
  });
  // A busy Firefox sends fewer pixels of the same shape.
  const becomes = (width, height) =>
    here.waitFor(({ width, height }) => {
      const last = probe.seen.output.at(-1);
      return last && last.width <= width && Math.abs((last.width * height) / (last.height * width) - 1) < 0.015;
    }, { width, height });
  const size = (width, height) => here.evaluate(({ width, height }) => void Object.assign(drawn.canvas, { width, height }), { width, height });
  for (const [width, height] of [[640, 480], [480, 640], [320, 180], [640, 480]]) {
    await size(width, height);
    await becomes(width, height);
  }
  await size(2560, 1440);
  await becomes(1920, 1080);
  // The first frames of the new size leave before the SDK has scaled it down.
  await here.waitFor(async () => {
    const { width } = (await session.measure()).sent;
    return width > 640 && width <= 1920;
  });
  await here.evaluate(async () => {
    drawn.stop();
    await session.close();
  });
});

firefox('after a start of the gateway on the same port the elements of the page go on, without an unprocessed frame', async () => {
  let own = await startGateway([...MEDIA, '--config', config]);
  const { port } = new URL(own.url);
  try {
    const page = await openElsewhere(own);
    await page.evaluate(async () => {
      await begin({ effect: 'background_blur' });
      window.elements = [true, false].map((autoplay) => Object.assign(document.createElement('video'), { autoplay, muted: true, srcObject: session.output }));
      document.body.append(...elements);
      await elements[1].play();
      elements.forEach((element, index) => probe.watch(`element ${index}`, element));
    });
    await seen('element 1', 10, page);
    await own.stop('SIGTERM');
    own = await startGateway([...MEDIA, '--config', config, '--listen', `127.0.0.1:${port}`]);
    await page.waitFor(() => told.some(({ name }) => name === 'reconnected'));
    const before = await page.evaluate(() => elements.map((_, index) => probe.seen[`element ${index}`].length));
    for (const index of [0, 1]) assertHidden(await seen(`element ${index}`, before[index] + 15, page), played, ['blurred']);
    await page.evaluate(() => session.close());
    await page.page.close();
  } finally {
    await own.stop();
  }
});
