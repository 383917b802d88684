// Tests that need no browser: errors, problem documents, the control channel, statistics. They use
// Node's test runner.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { FakeChannel } from './fakes.js';
import { candidateAddresses } from '../connection.js';
import { Control } from '../control.js';
import { cameraError, problemOf } from '../errors.js';
import { call, gatewayBase, servedBy } from '../http.js';
import { bitrateFor, scaleFor } from '../link.js';
import { figuresBetween } from '../measure.js';
import { OoblexError, connect, defaults, effects } from '../ooblex.js';

function serving(status, type, body, use) {
  const paths = [];
  const answer = ({ url }, response) => {
    paths.push(url);
    response.writeHead(status, { 'content-type': type }).end(body);
  };
  return answering(answer, (url) => use(url, paths));
}

async function answering(answer, use) {
  const server = createServer(answer);
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.close();
  }
}

const code = (expected) => (error) => error instanceof OoblexError && error.code === expected && error.message.length > 20;

test('acks are matched with their requests whatever their order', async () => {
  const channel = new FakeChannel();
  const control = new Control(channel);
  const blur = control.request({ type: 'set_effect', effect: 'background_blur', params: {} });
  const style = control.request({ type: 'set_effect', effect: 'style_transfer', params: {} });
  const [first, second] = channel.sent;
  assert.notEqual(first.id, second.id);
  channel.say({ type: 'ack', id: second.id, effect: 'style_transfer', first_sequence: 9 });
  channel.say({ type: 'ack', id: first.id, effect: 'background_blur', first_sequence: 8 });
  assert.equal((await blur).first_sequence, 8);
  assert.equal((await style).first_sequence, 9);
});

test('an error with an id rejects its request, one without goes to the listener', async () => {
  const channel = new FakeChannel();
  const control = new Control(channel);
  const heard = [];
  control.listeners = { error: (error) => heard.push(error) };
  const change = control.request({ type: 'set_effect', effect: 'no_such' });
  channel.say({ type: 'error', id: 1, problem: { type: 'x:unknown-effect', title: 'Unknown effect', status: 404, detail: "There is no effect 'no_such'." } });
  await assert.rejects(change, (error) => error.code === 'effect-rejected' && error.problem.status === 404 && error.detail.includes('no_such'));
  channel.say({ type: 'error', problem: { title: 'No worker', detail: 'Start one.' } });
  assert.deepEqual(heard.map((error) => [error.code, error.problem.detail]), [['gateway-error', 'Start one.']]);
});

test('figures and detections are routed; garbage and unknown types are passed over', () => {
  const channel = new FakeChannel();
  const heard = [];
  new Control(channel).listeners = { stats: (m) => heard.push(m.fps_in), detections: (m) => heard.push(m.faces.length), error: () => heard.push('error') };
  for (const message of ['', '{', 'null', '[]', '7', '{"type":"news"}', '{"type":"ack","id":99}']) channel.say(message);
  channel.say({ type: 'stats', fps_in: 30 });
  channel.say({ type: 'detections', faces: [{}, {}] });
  assert.deepEqual(heard, [30, 2]);
});

test('news of workers are routed', () => {
  const channel = new FakeChannel();
  const heard = [];
  new Control(channel).listeners = { service: ({ effect, state }) => heard.push([effect, state]) };
  channel.say({ type: 'service', effect: 'background_blur', state: 'no_worker' });
  channel.say({ type: 'service', effect: 'background_blur', state: 'served' });
  assert.deepEqual(heard, [['background_blur', 'no_worker'], ['background_blur', 'served']]);
});

test('what is said once is kept until somebody listens, and told in order', async () => {
  const channel = new FakeChannel();
  const control = new Control(channel);
  const heard = [];
  channel.say({ type: 'settings', effect: 'none' });
  channel.say({ type: 'stats', fps_in: 30 });
  channel.say({ type: 'error', problem: { title: 'No worker', detail: 'Start one.' } });
  control.listeners = { settings: ({ effect }) => heard.push(effect), error: ({ code }) => heard.push(code), stats: () => heard.push('stats'), bye: ({ reason }) => heard.push(reason) };
  channel.say({ type: 'bye', reason: 'idle' });
  assert.deepEqual(heard, [], 'whoever made the session gets the time to listen to it');
  await new Promise((resolve) => setTimeout(resolve));
  channel.say({ type: 'stats', fps_in: 30 });
  assert.deepEqual(heard, ['none', 'gateway-error', 'idle', 'stats']);
});

test('a change without an ack times out', async () => {
  const control = new Control(new FakeChannel(), { timeoutMs: 5 });
  await assert.rejects(control.request({ type: 'set_effect' }), code('timeout'));
});

test('when the channel closes, waiting and later changes are rejected and the end is told once', async () => {
  const channel = new FakeChannel();
  const control = new Control(channel);
  let ends = 0;
  control.listeners = { closed: () => ends++ };
  const waiting = control.request({ type: 'set_effect' });
  channel.onclose();
  control.close(new OoblexError('closed'));
  await assert.rejects(waiting, code('closed'));
  await assert.rejects(control.request({ type: 'set_effect' }), code('closed'));
  assert.equal(ends, 1);
});

test('a channel that refuses to send rejects the change', async () => {
  const channel = new FakeChannel();
  const control = new Control(channel);
  channel.closed = true;
  await assert.rejects(control.request({ type: 'set_effect' }), code('closed'));
});

test('every camera failure has its code', () => {
  const named = (name) => Object.assign(new Error('x'), { name });
  const expected = { NotAllowedError: 'permission-denied', NotFoundError: 'no-camera', OverconstrainedError: 'no-camera', NotReadableError: 'camera-busy', AbortError: 'camera-busy' };
  for (const [name, wanted] of Object.entries(expected)) {
    const error = cameraError(named(name));
    assert.equal(error.code, wanted);
    assert.equal(error.cause.name, name);
  }
  const mistake = new TypeError('bad constraints');
  assert.equal(cameraError(mistake), mistake);
});

test('every error has a type and says how to fix it', () => {
  const error = new OoblexError('permission-denied');
  assert.equal(error.type, 'urn:ooblex:sdk:permission-denied');
  assert.ok(error.message.includes(error.remedy) && error.remedy.length > 10);
  const problem = { type: 'urn:ooblex:problem:no-worker', title: 'No worker', status: 503, detail: 'Start one.' };
  const told = new OoblexError('gateway-error', { problem });
  assert.deepEqual([told.type, told.remedy, told.message], [problem.type, 'Start one.', 'Start one.']);
  assert.match(cameraError(Object.assign(new Error('x'), { name: 'NotAllowedError' }), 'screen').message, /screen was not allowed/);
});

test('without a camera interface connect says that the page is not secure', async () => {
  await assert.rejects(connect({ url: 'http://192.0.2.1:8000' }), code('insecure-context'));
});

test('a refusal of the gateway keeps its problem document', async () => {
  const problem = { type: 'https://example.org/bad-parameter', title: 'Bad parameter', status: 422, detail: "parameter 'strength' must be a number from 0 to 1, not 2" };
  await serving(422, 'application/problem+json', JSON.stringify(problem), async (url) => {
    await assert.rejects(call(new URL('offer', url), {}, 'offer-rejected'), (error) => {
      assert.equal(error.code, 'offer-rejected');
      assert.equal(error.message, problem.detail);
      assert.deepEqual(error.problem, problem);
      return true;
    });
  });
});

test('what is not an Ooblex gateway is called unreachable, with the address', async () => {
  const names = (error) => error.code === 'gateway-unreachable' && error.detail.includes('http://127.0.0.1');
  await serving(502, 'text/html', '<h1>Bad gateway</h1>', (url) => assert.rejects(effects(url), names));
  await serving(200, 'text/html', '<h1>Hello</h1>', (url) => assert.rejects(effects(url), names));
  const gone = await serving(200, 'text/html', '', (url) => url);
  await assert.rejects(effects(gone), names);
});

test('a request that is cut off, before its answer or within it, is made once more', async () => {
  const list = { effects: [], backend: 'x' };
  const cuts = [({ socket }) => socket.destroy(), ({ socket }, response) => response.writeHead(200, { 'content-length': 99 }).write('{"effects"', () => socket.destroy())];
  for (const cut of cuts) {
    for (const times of [1, 2]) {
      let requests = 0;
      const answer = (request, response) => ((requests += 1) <= times ? cut(request, response) : response.end(JSON.stringify(list)));
      await answering(answer, async (url) => {
        if (times === 1) assert.deepEqual(await effects(url), list);
        else await assert.rejects(effects(url), code('gateway-unreachable'));
        assert.equal(requests, 2);
      });
    }
  }
});

test('a request that its caller gave up is not made again', async () => {
  const gaveUp = new AbortController();
  let requests = 0;
  const answer = ({ socket }) => {
    requests += 1;
    gaveUp.abort(new Error('enough'));
    socket.destroy();
  };
  await answering(answer, (url) => assert.rejects(effects(url, { signal: gaveUp.signal }), (error) => error.message === 'enough'));
  assert.equal(requests, 1);
});

test('the list of effects is read below a path as well', async () => {
  const list = { effects: [{ name: 'none' }], backend: 'x' };
  await serving(200, 'application/json', JSON.stringify(list), async (url, paths) => {
    assert.deepEqual(await effects(`${url}/below/this`), list);
    assert.deepEqual(paths, ['/below/this/api/effects']);
  });
});

test('the gateway is the one that served the module, also below a path, and in a bundle the page\'s origin', () => {
  assert.equal(servedBy('https://media.example/video/sdk/http.js?x#y'), 'https://media.example/video/');
  assert.equal(servedBy('http://127.0.0.1:8000/sdk/http.js'), 'http://127.0.0.1:8000/');
  for (const bundled of ['https://app.example/assets/index-4f2d.js', 'file:///app/node_modules/ooblex/sdk/http.js', undefined]) assert.equal(servedBy(bundled), undefined);
  assert.throws(() => gatewayBase(), /name the gateway/);
  globalThis.location = { origin: 'https://app.example', href: 'https://app.example/rooms/7?x=1#y' };
  try {
    assert.equal(gatewayBase().href, 'https://app.example/');
    assert.equal(gatewayBase('/video').href, 'https://app.example/video/');
    assert.equal(gatewayBase('https://media.example/video?x#y').href, 'https://media.example/video/');
  } finally {
    delete globalThis.location;
  }
});

test('a server can import the module: nothing of a browser is touched before it is used', () => {
  const names = ['window', 'document', 'navigator', 'location', 'MediaStream', 'RTCPeerConnection'];
  const code = `
    for (const name of ${JSON.stringify(names)}) Object.defineProperty(globalThis, name, { configurable: true, get() { throw new Error(name + ' was touched'); } });
    const sdk = await import(${JSON.stringify(new URL('../ooblex.js', import.meta.url).href)});
    console.log(typeof sdk.connect, typeof sdk.Session);`;
  assert.equal(execFileSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' }), 'function function\n');
});

test('a broken problem document still gives every field', () => {
  for (const broken of [null, undefined, 'text', 7, { title: 3, status: 'x' }]) {
    const problem = problemOf(broken, 500);
    assert.deepEqual([problem.type, problem.title, problem.status, problem.detail], ['about:blank', 'Unknown problem', 500, 'Unknown problem']);
  }
  assert.equal(problemOf({ title: 'T', extra: 1 }, 0).extra, 1);
});

test('defaults come from the schema and are fresh each time', () => {
  const schema = { properties: { strength: { type: 'number', default: 0.6 }, blend: { type: 'object', default: {} }, labels: { type: 'boolean', default: false }, odd: {} } };
  const one = defaults(schema);
  assert.deepEqual(one, { strength: 0.6, blend: {}, labels: false });
  one.blend.ink = 1;
  assert.deepEqual(defaults(schema).blend, {});
  assert.deepEqual(defaults(undefined), {});
});

test('a failed connection can name the addresses that were advertised', () => {
  const sdp = 'v=0\r\na=candidate:1 1 udp 2130706431 192.0.2.7 8001 typ host\r\na=candidate:1 2 UDP 2130706431 192.0.2.7 8001 typ host\r\na=candidate:2 1 udp 1 2001:db8::1 8001 typ host\r\n';
  assert.deepEqual(candidateAddresses(sdp), ['udp 192.0.2.7:8001', 'udp [2001:db8::1]:8001']);
});

test('rates are taken between two reports and are null before', () => {
  const report = (seconds, frames, bytes) =>
    new Map([
      ['in', { type: 'inbound-rtp', kind: 'video', timestamp: seconds * 1000, framesDecoded: frames, bytesReceived: bytes, jitterBufferDelay: frames * 0.01, jitterBufferEmittedCount: frames, frameWidth: 640, frameHeight: 480, codecId: 'c' }],
      ['c', { type: 'codec', mimeType: 'video/VP8' }],
      ['pair', { type: 'candidate-pair', state: 'succeeded', nominated: true, currentRoundTripTime: 0.004 }],
    ]);
  const [before, now] = [report(1, 30, 0), report(3, 90, 250_000)];
  const first = figuresBetween(null, before);
  assert.deepEqual([first.received.fps, first.roundTripMs, first.received.codec], [null, 4, 'VP8']);
  const { received } = figuresBetween(before, now);
  assert.deepEqual([received.fps, received.bitrateBps, received.width], [30, 1_000_000, 640]);
  assert.ok(Math.abs(received.jitterBufferMs - 10) < 1e-6);
  assert.equal(figuresBetween(now, before).received.fps, null, 'a counter that went back gives no rate');
});

test('a picture is scaled down to the pixels that the gateway allows, and keeps its shape', () => {
  const of = (width, height, kilopixels = 2100) => scaleFor({ width, height }, kilopixels);
  assert.deepEqual([of(640, 480), of(1920, 1080), of(2560, 1440), of(3840, 2160), of(2160, 3840)], [1, 1, 4 / 3, 2, 2]);
  assert.deepEqual([of(undefined, undefined), scaleFor({ width: 3840, height: 2160 }, undefined)], [1, 1]);
  for (const [width, height, kilopixels] of [[1920, 1200, 2100], [5120, 1440, 2100], [3840, 2160, 10]]) {
    const scale = of(width, height, kilopixels);
    assert.ok((width * height) / scale ** 2 < 1001 * kilopixels && (width * height) / scale ** 2 > 700 * kilopixels, `${width}x${height}: ${scale}`);
  }
});

test('the maximum bitrate goes with the pixels; small and unknown pictures keep the browser\'s own', () => {
  const of = (width, height) => bitrateFor({ width, height });
  assert.deepEqual([of(1280, 720), of(720, 1280), of(960, 540), of(1920, 1080), of(3840, 2160)], [4e6, 4e6, 2.25e6, 8e6, 8e6]);
  assert.deepEqual([of(640, 480), of(320, 240), of(undefined, undefined)], [null, null, null]);
});
