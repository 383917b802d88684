// Tests of a session with a fake connection: sources, muting, the end, and reconnecting.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FakeLink, FakeStream, FakeTrack, given } from './fakes.js';
import { Access } from '../access.js';
import { OoblexError, Session } from '../ooblex.js';
import { Inputs, showTracks } from '../inputs.js';
import { Pulse, Watch, delayAfter, delayBefore, mayPass } from '../liveness.js';

function session({ input = given(), reconnect = false, ...options } = {}) {
  const link = new FakeLink();
  const made = new Session(link, { base: new URL('http://192.0.2.1/'), access: new Access(), input, effect: 'background_blur', reconnect, timeoutMs: 1, ...options });
  const heard = [];
  for (const name of ['service', 'settings', 'state', 'close', 'error', 'source', 'reconnecting', 'reconnected']) made.on(name, (detail) => heard.push([name, detail]));
  return { made, link, heard, names: () => heard.map(([name]) => name) };
}

test('a session tells each change of service once, from whichever message it learns it', async () => {
  const { made, link, heard } = session();
  const { stats, service } = link.tell;
  stats({ effect: 'background_blur', service: 'served' });
  stats({ effect: 'background_blur' });
  service({ effect: 'background_blur', state: 'no_worker' });
  stats({ effect: 'background_blur', service: 'no_worker' });
  assert.deepEqual(made.service, { effect: 'background_blur', state: 'no_worker' });
  service({ effect: 'style_transfer', state: 'no_worker' });
  stats({ effect: 'style_transfer', service: 'broker_down' });
  service({ effect: 'style_transfer', state: 'served' });
  stats({ effect: 'style_transfer', service: 'served' });
  const told = heard.filter(([name]) => name === 'service').map(([, { effect, state }]) => `${effect} ${state}`);
  assert.deepEqual(told, ['background_blur no_worker', 'style_transfer no_worker', 'style_transfer broker_down', 'style_transfer served']);
  assert.equal(made.service.state, 'served');
  await made.close();
});

test('a change that is refused leaves what was on, one that is confirmed is what the session says', async () => {
  const { made, link } = session();
  const refused = made.changeEffect('no_such');
  await Promise.resolve();
  link.asked[0].reject(new OoblexError('effect-rejected', { problem: { type: 'urn:x', title: 'No', detail: 'There is none.' } }));
  await assert.rejects(refused, (error) => error.type === 'urn:x' && error.remedy === 'There is none.');
  assert.equal(made.effect, 'background_blur');
  const set = made.setParams({ strength: 1 });
  await Promise.resolve();
  assert.deepEqual([link.asked[1].effect, link.asked[1].params], ['background_blur', { strength: 1 }]);
  link.asked[1].resolve({ effect: 'background_blur', params: { strength: 1 } });
  await set;
  assert.deepEqual(made.params, { strength: 1 });
  await made.close();
  await assert.rejects(made.changeEffect('none'), (error) => error.code === 'closed');
});

test('another source is sent, shown and told; what the session opened is stopped, what it was given is not', async () => {
  const { made, link, names } = session({ input: given({ owned: true, sound: true }) });
  const [camera, sound] = [made.input.getVideoTracks()[0], made.input.getAudioTracks()[0]];
  assert.deepEqual(made.output.getTracks(), [link.output.video, link.output.audio], 'sound comes back when some is sent');
  await made.useMicrophone(false);
  assert.deepEqual(made.output.getTracks(), [link.output.video]);
  assert.equal(link.sent[0].audio, null);
  const stream = new FakeStream([new FakeTrack()]);
  await made.replaceSource(stream);
  assert.deepEqual([link.sent[1].video, made.input.getVideoTracks()[0]], [stream.getTracks()[0], stream.getTracks()[0]]);
  assert.deepEqual([camera.stopped, sound.stopped], [true, true]);
  await made.close();
  assert.equal(stream.getTracks()[0].stopped, false);
  assert.deepEqual(names(), ['source', 'source', 'state', 'close']);
});

test('what is muted stays muted with another source, and only while it is wanted', async () => {
  const { made } = session();
  made.mute('video');
  assert.deepEqual([made.input.getVideoTracks()[0].enabled, made.muted], [false, { video: true, audio: false }]);
  const stream = new FakeStream([new FakeTrack(), new FakeTrack('audio')]);
  await made.replaceSource(stream);
  assert.deepEqual(stream.getTracks().map(({ enabled }) => enabled), [false, true]);
  made.mute('video', false);
  assert.equal(stream.getVideoTracks()[0].enabled, true);
  await made.close();
});

test('a track that is disabled when it is given stays so until the session is told otherwise', async () => {
  const input = given();
  input.video.track.enabled = false;
  const { made } = session({ input });
  assert.equal(input.video.track.enabled, false);
  await made.useMicrophone(false);
  assert.equal(input.video.track.enabled, false);
  made.mute('video', false);
  assert.equal(input.video.track.enabled, true);
  await made.close();
});

test('a source that ends by itself is reported, one that was replaced is not', async () => {
  const { made, names } = session();
  const first = made.input.getVideoTracks()[0];
  await made.replaceSource(new FakeStream([new FakeTrack()]));
  first.dispatchEvent(new Event('ended'));
  assert.deepEqual(names(), ['source']);
  made.input.getVideoTracks()[0].dispatchEvent(new Event('ended'));
  assert.deepEqual(names(), ['source', 'error']);
  await made.close();
});

test('a source is silent when two seconds have brought no frame, and live with the next one', () => {
  const watch = new Watch(0);
  assert.deepEqual([[500, 0], [1500, 15], [3400, 15], [3500, 15], [9000, 15], [9500, 16]].map(([ms, frames]) => watch.look(ms, frames)), ['live', 'live', 'live', 'silent', 'silent', 'live']);
  assert.equal(watch.look(9600, 3), 'live', 'another source counts anew');
  assert.deepEqual([500, 2000].map((ms) => new Watch(0).look(ms, 7)), ['live', 'silent']);
  assert.deepEqual([[500, 7], [2500, null], [3000, null], [3500, 8]].map(([ms, frames]) => watch.look(10_000 + ms, frames)), ['live', 'silent', 'silent', 'live'], 'a source that is gone, and back');
  const later = new Watch(0, 'silent');
  assert.deepEqual([later.look(500, 7), later.look(1000, 7), later.look(1500, 8)], ['silent', 'silent', 'live']);
});

test('a source that falls silent is reported once, and once when it is back', async (t) => {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { made, link, heard } = session();
  const pass = async (ms, frames) => {
    for (const end = now + ms; now < end; ) {
      now += 500;
      link.delivered += frames;
      link.tell.heard();
      t.mock.timers.tick(500);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const told = () => heard.filter(([name]) => name === 'source').map(([, { input, state }]) => [input === made.input, state]);
  await pass(5000, 15);
  assert.deepEqual([told(), made.sourceState], [[], 'live']);
  await pass(1500, 0);
  assert.deepEqual(told(), []);
  await pass(1000, 0);
  assert.deepEqual([told(), made.sourceState], [[[true, 'silent']], 'silent']);
  await made.useMicrophone(false);
  assert.deepEqual(told().at(-1), [true, 'silent'], 'another microphone does not wake the camera');
  await pass(5000, 0);
  await pass(500, 1);
  assert.deepEqual([told().slice(2), made.sourceState], [[[true, 'live']], 'live']);
  await made.close();
  await pass(5000, 0);
  assert.equal(told().length, 3);
});

test('in a browser that repeats the last frame, one frame per second counts as none', () => {
  const watch = new Watch(0, 'live', { repeats: true });
  const looks = (from, until, count) => Array.from({ length: (until - from) / 500 }, (_, index) => from + 500 * (index + 1)).map((ms) => watch.look(ms, count(ms)));
  const changes = (states) => states.filter((state, index) => state !== states[index - 1]);
  const frames = (fps, from, start) => (ms) => start + Math.floor((fps * (ms - from)) / 1000);
  assert.deepEqual(changes(looks(0, 4000, frames(30, 0, 0))), ['live']);
  assert.deepEqual(looks(4000, 7000, frames(1, 4000, 120)).map((state) => state[0]).join(''), 'lllsss', 'it stopped at 4 s');
  assert.deepEqual(changes(looks(7000, 60_000, frames(1, 4000, 120))), ['silent']);
  assert.deepEqual(changes(looks(60_000, 64_000, frames(30, 60_000, 176))), ['live']);
  assert.deepEqual(changes(looks(64_000, 74_000, frames(2, 64_000, 296))), ['live'], 'a source with two frames per second');
});

test('a stream never runs dry while its tracks are replaced, and the old ones leave before the new ones come', () => {
  const stream = new FakeStream([new FakeTrack(), new FakeTrack('audio')]);
  const next = [new FakeTrack(), new FakeTrack('audio')];
  showTracks(stream, next);
  assert.deepEqual(stream.getTracks(), next);
  assert.deepEqual(stream.history, [3, 2, 1, 2, 3, 2]);
  showTracks(stream, [next[0]]);
  showTracks(stream, [next[0]]);
  assert.deepEqual(stream.getTracks(), [next[0]]);
  assert.equal(stream.history.length, 7, 'without a new track no copy is needed');
});

test('a source without a picture is refused', async () => {
  await assert.rejects(Inputs.of(new FakeStream([new FakeTrack('audio')])), (error) => error.code === 'no-camera');
});

test('a lost connection ends a session that shall not come back, and one that the gateway dismissed', async () => {
  const stubborn = session();
  stubborn.link.tell.closed();
  assert.deepEqual([stubborn.made.state, stubborn.names()], ['closed', ['state', 'close']]);
  const dismissed = session({ reconnect: true });
  dismissed.link.tell.bye({ reason: 'ended' });
  dismissed.link.tell.closed();
  assert.equal(dismissed.made.state, 'closed');
});

test('a lost connection is made again until it is given up, and a change waits for that', async () => {
  const { made, link, heard } = session({ reconnect: { maxDelayMs: 1, giveUpAfterMs: 40 } });
  const change = made.changeEffect('style_transfer');
  await Promise.resolve();
  link.tell.bye({ reason: 'stopping' });
  link.tell.closed();
  assert.equal(made.state, 'reconnecting');
  await assert.rejects(change, (error) => error.code === 'closed');
  assert.equal(made.state, 'closed');
  const tries = heard.filter(([name]) => name === 'reconnecting').map(([, { attempt }]) => attempt);
  assert.deepEqual(tries, tries.map((_, index) => index + 1));
  const [, { error }] = heard.at(-1);
  // Without RTCPeerConnection each attempt fails with a permanent error.
  assert.ok(error, 'the end says why');
});

test('why a gateway ends a session decides whether that comes back, and is what its end says', async () => {
  const forGood = { ended: 'closed', idle: 'closed', time_limit: 'closed', undecodable: 'closed', budget: 'closed', too_many_channels: 'closed', expired: 'expired' };
  for (const [reason, code] of Object.entries(forGood)) {
    const { made, link, heard } = session({ reconnect: true });
    link.tell.bye({ reason });
    const [, { error, reason: told }] = heard.at(-1);
    assert.deepEqual([made.state, error.code, error.reason, told], ['closed', code, reason, reason]);
    assert.ok(link.isOver, 'a gateway that ended the session is not asked to end it');
  }
  for (const reason of ['draining', 'stopping', 'broken', 'something newer', undefined]) {
    const { made, link } = session({ reconnect: true });
    link.tell.bye({ reason });
    assert.equal(made.state, 'reconnecting', reason);
    await made.close();
  }
  const words = session({ reconnect: true });
  words.link.tell.bye({ reason: 'budget', detail: 'It took 900 ms of every second.' });
  assert.equal(words.heard.at(-1)[1].error.message, 'It took 900 ms of every second.');
});

test('an expired token ends a session for good only where there is no other', async () => {
  const { made, link } = session({ reconnect: true, access: new Access({ token: () => new Promise(() => {}) }) });
  link.tell.bye({ reason: 'expired' });
  assert.equal(made.state, 'reconnecting');
  await made.close();
});

test('a change by somebody else is what the session says, and what it comes back with', async () => {
  const { made, link, heard } = session();
  link.tell.settings({ type: 'settings', effect: 'none', params: {}, change: 1, by: 'api' });
  assert.deepEqual([made.effect, made.params], ['none', {}]);
  const previous = { effect: 'background_blur', params: {} };
  assert.deepEqual(heard, [['settings', { effect: 'none', params: {}, by: 'api', previous }]]);
  const set = made.setParams({ strength: 1 });
  await Promise.resolve();
  assert.equal(link.asked[0].effect, 'none', 'what is changed is what is in force');
  link.asked[0].resolve({ effect: 'none', params: { strength: 1 }, change: 2 });
  await set;
  assert.deepEqual(made.params, { strength: 1 });
  await made.close();
});

test('an ack that was overtaken by somebody else\'s change is an ack, and not what is in force', async () => {
  const { made, link, heard } = session();
  const change = made.changeEffect('sepia');
  await Promise.resolve();
  link.tell.settings({ effect: 'invert', params: {}, change: 2, by: 'api' });
  link.asked[0].resolve({ effect: 'sepia', params: {}, change: 1 });
  assert.equal((await change).effect, 'sepia');
  assert.equal(made.effect, 'invert');
  const parameter = made.setParams({ strength: 1 });
  await Promise.resolve();
  assert.equal(link.asked[1].effect, 'invert', 'nor what is wanted');
  link.asked[1].resolve({ effect: 'invert', params: { strength: 1 }, change: 3 });
  await parameter;
  // A message that is late, or that cannot be applied, changes nothing.
  link.tell.settings({ effect: 'none', params: {}, change: 2, by: 'api' });
  link.tell.settings({ params: {}, change: 9 });
  assert.deepEqual([made.effect, heard.filter(([name]) => name === 'settings').length], ['invert', 1]);
  await made.close();
});

test('a connection is live while the gateway is heard, and lost when it has not been for long', () => {
  const pulse = new Pulse(0);
  pulse.heard(4_000);
  assert.equal(pulse.look(8_000), 'live');
  assert.equal(pulse.look(10_000), 'interrupted');
  pulse.heard(11_000);
  assert.equal(pulse.look(11_500), 'live', 'a pause alone is no loss');
  pulse.connection('disconnected');
  assert.deepEqual([pulse.look(12_000), pulse.look(23_000), pulse.look(24_000)], ['interrupted', 'interrupted', 'lost']);
  pulse.connection('connected');
  pulse.heard(24_000);
  assert.equal(pulse.look(24_500), 'live');
  assert.equal(pulse.look(90_000), 'interrupted', 'a machine that slept did not listen: the gateway may not have been silent');
});

test('attempts come at growing intervals, within bounds, and not all at once', () => {
  const full = [1, 2, 3, 4, 5, 6, 7, 50].map((attempt) => delayBefore(attempt, 8_000, 1));
  assert.deepEqual(full, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
  assert.equal(delayBefore(3, 8_000, 0), 500);
  assert.equal(delayAfter({ retryAfterMs: 30_000 }, 1, 8_000, 1), 30_250, 'a gateway that asks to wait is not asked all at once either');
  assert.equal(delayAfter(new Error('no such wish'), 1, 8_000, 1), 250);
});

test('what the gateway will say again is not asked for again', () => {
  const refused = (status) => new OoblexError('offer-rejected', { problem: { status, title: '', detail: '', type: '' } });
  assert.deepEqual([refused(503), refused(429), refused(422), new OoblexError('gateway-unreachable'), new OoblexError('connection-failed')].map(mayPass), [true, true, false, true, true]);
  assert.equal(mayPass(new TypeError('a mistake')), false);
  assert.deepEqual(['unauthorized', 'forbidden', 'wrong-host', 'no-token'].map((code) => mayPass(new OoblexError(code))), [false, false, false, true]);
});
