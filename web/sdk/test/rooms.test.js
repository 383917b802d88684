// Tests of rooms: publishing, watching, and the list. They use an HTTP server of Node and fake connections.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { FakePeerConnection, FakeStream, FakeTrack } from './fakes.js';
import { OoblexError, listRooms, publish, randomRoom, watch } from '../ooblex.js';
import { checkedRoom, iceServers, serverSentEvents } from '../rooms.js';

globalThis.RTCPeerConnection = FakePeerConnection;

const SDP = 'v=0\r\n';
const TURN = '<turn:turn.example:3478?transport=udp>; rel="ice-server"; username="1700:ann"; credential="pass"; credential-type="password"';

/**
 * A gateway below `/video/` that answers offers in order with `[status, body, headers]`, repeating the
 * last one, and other requests with `other(request, response)`. `asked` has all requests.
 */
async function gateway(answers, use, other = (_, response) => response.writeHead(200).end('{}')) {
  const asked = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (part) => (body += part));
    request.on('end', () => {
      const { method, url, headers } = request;
      asked.push({ method, url, bearer: headers.authorization, type: headers['content-type'], body });
      if (method !== 'POST') return other(request, response);
      const [status, text, more] = answers.length > 1 ? answers.shift() : answers[0];
      response.writeHead(status, { 'content-type': 'application/sdp', ...more }).end(text);
    });
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  FakePeerConnection.made.length = 0;
  try {
    return await use({ asked, url: `http://127.0.0.1:${server.address().port}/video/`, shortly: (what) => `${what.method} ${what.url} ${what.bearer}` });
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

const created = (endpoint, secret = 'obs_secret', id = '17') => [201, SDP, { location: `/${endpoint}/${secret}`, etag: `"${id}"`, link: TURN }];
const problem = (status, kind) => [status, JSON.stringify({ type: `urn:ooblex:problem:${kind}`, title: 'Refused', status, detail: 'Refused.' }), { 'content-type': 'application/problem+json', 'retry-after': '0' }];
const camera = () => new FakeStream([new FakeTrack()]);
const until = async (what) => {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 5));
};

test('publishing posts the offer to the room, with effect and token, and the secret controls the session', () =>
  gateway([created('whip/studio')], async ({ asked, url, shortly }) => {
    const session = await publish('studio', { url, token: 'key', source: camera(), effect: 'sepia', params: { strength: 0.5 } });
    const [offer] = asked;
    assert.deepEqual([offer.method, offer.type, offer.bearer, offer.body], ['POST', 'application/sdp', 'Bearer key', 'an offer']);
    const asking = new URL(offer.url, url);
    assert.deepEqual([asking.pathname, Object.fromEntries(asking.searchParams)], ['/video/whip/studio', { effect: 'sepia', params: '{"strength":0.5}' }]);
    const [connection] = FakePeerConnection.made;
    assert.deepEqual(connection.directions, ['sendonly', 'sendonly']);
    assert.deepEqual(connection.getConfiguration().iceServers, [{ urls: 'turn:turn.example:3478?transport=udp', username: '1700:ann', credential: 'pass' }]);
    assert.deepEqual([session.room, session.id, session.effect, session.output.getTracks()], ['studio', '17', 'sepia', []]);
    await session.close();
    assert.equal(shortly(asked.at(-1)), 'DELETE /video/api/sessions/17 Bearer obs_secret');
    assert.doesNotMatch(JSON.stringify([session, Object.values(session)]), /obs_secret/);
  }));

test('a publisher that wants its pictures back asks for them, and is told its viewers', (t) =>
  gateway([created('whip/studio')], async ({ asked, url }) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const session = await publish('studio', { url, source: camera(), echo: true });
    assert.ok(asked[0].url.endsWith('/whip/studio?echo=true'));
    assert.deepEqual([FakePeerConnection.made[0].directions[0], session.output.getTracks().length, session.viewers], ['sendrecv', 1, null]);
    const told = new Promise((resolve) => session.on('viewers', resolve));
    t.mock.timers.tick(2000);
    assert.deepEqual([await told, session.viewers], [3, 3]);
    await session.close();
  }, (_, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"viewers": 3}')));

test('a publisher that comes back leaves the room before it enters it again', () =>
  gateway([created('whip/studio'), problem(409, 'room-taken'), created('whip/studio', 'obs_second', '18')], async ({ asked, url, shortly }) => {
    const session = await publish('studio', { url, source: camera(), reconnect: { maxDelayMs: 1 } });
    const back = new Promise((resolve) => session.on('reconnected', resolve));
    FakePeerConnection.made[0].channel.say({ type: 'bye', reason: 'broken' });
    assert.equal((await back).attempts, 2);
    // The gateway ended the former session itself, so it is not asked to.
    assert.deepEqual(asked.map(shortly), Array(3).fill('POST /video/whip/studio undefined'));
    await new Promise(setImmediate);
    const again = new Promise((resolve) => session.on('reconnected', resolve));
    FakePeerConnection.made.at(-1).connectionState = 'failed';
    FakePeerConnection.made.at(-1).onconnectionstatechange();
    await again;
    assert.deepEqual(asked.slice(3).map(shortly), ['DELETE /video/api/sessions/18 Bearer obs_second', 'POST /video/whip/studio undefined']);
    await session.close();
  }));

test('a room that somebody else publishes to is refused', () =>
  gateway([problem(409, 'room-taken')], ({ url }) => assert.rejects(publish('studio', { url, source: camera() }), (error) => error instanceof OoblexError && error.code === 'room-taken')));

/** Answers the events of a room; `tell` gets a function that sends one. */
const events = (tell) => (request, response) => {
  if (!request.url.endsWith('/events')) return response.writeHead(200).end();
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(': keep-alive\n\n');
  tell((event, data) => response.write(`event: ${event}\ndata: ${data}\n\n`), response);
};

test('a viewer is told whether the publisher sends and how many watch, and leaves with its token', () => {
  let tell;
  return gateway([created('whep/studio')], async ({ asked, url, shortly }) => {
    const viewer = await watch('studio', { url, token: 'key' });
    assert.deepEqual(FakePeerConnection.made[0].directions, ['recvonly', 'recvonly']);
    assert.deepEqual([viewer.state, viewer.room, viewer.active, viewer.viewers, viewer.output.getTracks().map(({ kind }) => kind)], ['live', 'studio', null, null, ['video', 'audio']]);
    const heard = [];
    for (const name of ['active', 'viewers']) viewer.on(name, (detail) => heard.push([name, detail]));
    await until(() => tell);
    tell('active', '{}');
    tell('viewercount', '{"viewercount":2}');
    tell('viewercount', '{"viewercount":2}');
    tell('news', '{}');
    tell('inactive', '{}');
    await until(() => heard.length === 3);
    assert.deepEqual(heard, [['active', true], ['viewers', 2], ['active', false]]);
    assert.deepEqual([viewer.active, viewer.viewers], [false, 2]);
    await viewer.close();
    assert.deepEqual(asked.map(shortly), ['POST /video/whep/studio Bearer key', 'GET /video/whep/studio/obs_secret/events Bearer key', 'DELETE /video/whep/studio/obs_secret Bearer key']);
    assert.equal(viewer.state, 'closed');
    assert.doesNotMatch(JSON.stringify([viewer, Object.values(viewer)]), /obs_secret/);
  }, events((say) => (tell = say)));
});

test('an empty and a full room are errors, unless the viewer waits', async () => {
  for (const [status, kind] of [[409, 'room-empty'], [503, 'room-full']]) {
    await gateway([problem(status, kind)], ({ url }) => assert.rejects(watch('studio', { url }), (error) => error.code === kind && error.retryAfterMs === 0));
  }
  const refusals = Array(5).fill(problem(409, 'room-empty'));
  await gateway([...refusals, problem(503, 'room-full'), created('whep/studio')], async ({ url, asked }) => {
    // It waits for any time; the limit is for other failures.
    const viewer = await watch('studio', { url, wait: true, reconnect: { maxDelayMs: 1, giveUpAfterMs: 0 } });
    assert.equal(viewer.state, 'waiting');
    const heard = [];
    viewer.on('reconnecting', ({ error }) => heard.push(error.code));
    viewer.on('state', (state) => heard.push(state));
    await new Promise((resolve) => viewer.on('reconnected', resolve));
    assert.deepEqual(heard, [...Array(5).fill('room-empty'), 'room-full', 'live']);
    assert.equal(asked.filter(({ method }) => method === 'POST').length, 7);
    await viewer.close();
  }, events(() => {}));
});

test('a viewer whose session was ended makes another one, and gives up when that takes too long', () => {
  const streams = [];
  let isOver = false;
  const other = (request, response) => {
    if (isOver && request.url.endsWith('/events')) return response.writeHead(404).end();
    return events((_, response) => streams.push(response))(request, response);
  };
  return gateway([created('whep/studio'), problem(409, 'room-empty'), created('whep/studio', 'obs_second'), problem(409, 'room-empty')], async ({ url, asked }) => {
    const viewer = await watch('studio', { url, reconnect: { maxDelayMs: 1, giveUpAfterMs: 200 } });
    const states = [];
    viewer.on('state', (state) => states.push(state));
    const end = () => {
      isOver = true;
      streams.at(-1).end();
    };
    await until(() => streams.length === 1);
    const back = new Promise((resolve) => viewer.on('reconnected', resolve)).then(() => (isOver = false));
    end();
    await back;
    assert.deepEqual(states, ['reconnecting', 'waiting', 'live']);
    assert.deepEqual(asked.filter(({ method }) => method === 'DELETE'), [], 'what the gateway has ended needs no end');
    await until(() => streams.length === 2);
    const closed = new Promise((resolve) => viewer.on('close', resolve));
    end();
    const { error } = await closed;
    assert.deepEqual([error.code, error.cause.code, viewer.state], ['gave-up', 'room-empty', 'closed']);
  }, other);
});

test('a viewer that may not watch any more ends with the refusal', () =>
  gateway([created('whep/studio'), problem(403, 'forbidden')], async ({ url }) => {
    const viewer = await watch('studio', { url, reconnect: { maxDelayMs: 1 } });
    const closed = new Promise((resolve) => viewer.on('close', resolve));
    FakePeerConnection.made[0].connectionState = 'failed';
    FakePeerConnection.made[0].onconnectionstatechange();
    assert.equal((await closed).error.code, 'forbidden');
  }, events(() => {})));

test('an answer that is none of a gateway is called so', () =>
  gateway([[200, '<h1>Hello</h1>', {}]], async ({ url }) => {
    await assert.rejects(watch('studio', { url }), (error) => error.code === 'gateway-unreachable');
  }));

test('the list has the rooms with their viewers, for the holder of a token', () =>
  gateway([], async ({ url, asked, shortly }) => {
    assert.deepEqual(await listRooms({ url, token: 'key' }), [{ room: 'studio', active: true, viewers: 2 }]);
    assert.deepEqual(asked.map(shortly), ['GET /video/api/rooms Bearer key']);
  }, (_, response) => response.end(JSON.stringify({ rooms: [{ room: 'studio', active: true, viewer_count: 2, effect: 'sepia' }] }))));

test('names of rooms are those that a URL contains unchanged, and a random one is one of them', async () => {
  for (const good of ['a', 'camera-1', 'A.b_c~9', 'x'.repeat(64), ...Array.from({ length: 100 }, randomRoom)]) assert.equal(checkedRoom(good), good);
  for (const bad of ['', '.', '..', 'a/b', 'a b', 'ä', 'a?b', 'x'.repeat(65), undefined, 7]) {
    assert.throws(() => checkedRoom(bad), TypeError);
    await assert.rejects(watch(/** @type {any} */ (bad), { url: 'http://192.0.2.1' }), TypeError);
  }
  const names = Array.from({ length: 100 }, randomRoom);
  assert.equal(new Set(names).size, 100);
  assert.ok(names.every((name) => name.length === 22), '128 bits have 22 characters');
});

test('TURN servers are read from links, and other links are not', () => {
  const links = `</whep/a/b/events>; rel="urn:x"; events="active,inactive", ${TURN}, <stun:stun.example>; rel="ice-server"`;
  assert.deepEqual(iceServers(links), [{ urls: 'turn:turn.example:3478?transport=udp', username: '1700:ann', credential: 'pass' }, { urls: 'stun:stun.example' }]);
  assert.deepEqual(iceServers(null), []);
});

test('events are read whatever the parts in which they come', async () => {
  const text = ': hello\n\nevent: active\ndata: {}\n\nevent:viewercount\r\ndata:{"viewercount":1}\r\n\r\ndata: nameless\n\nevent: cut';
  for (const size of [1, 7, 1000]) {
    const bytes = new TextEncoder().encode(text);
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const read = [];
    for await (const event of serverSentEvents(body)) read.push(event);
    assert.deepEqual(read, [{ event: 'active', data: '{}' }, { event: 'viewercount', data: '{"viewercount":1}' }]);
  }
});
