// Tests of credentials: which ones the SDK sends to the gateway with which request. They use an
// HTTP server of Node and fake connections.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { FakePeerConnection, FakeStream, FakeTrack } from './fakes.js';
import { Access } from '../access.js';
import { retryAfterMs } from '../http.js';
import { OoblexError, connect, effects } from '../ooblex.js';

globalThis.RTCPeerConnection = FakePeerConnection;

const problem = (status, kind, detail = `It was refused: ${kind}.`) => ({ type: `urn:ooblex:problem:${kind}`, title: 'Refused', status, detail });
const ANSWER = { sdp: 'v=0', type: 'answer', session: 'abc', secret: 'the-secret' };

/**
 * A gateway that answers requests in order with `[status, body, headers, when]`, repeating the last
 * one, each when the promise `when` resolves; offers are in `asked`, all other requests in `others`.
 */
async function gateway(answers, use) {
  const [asked, others] = [[], []];
  const server = createServer((request, response) => {
    const offered = request.url === '/offer';
    (offered ? asked : others).push({ method: request.method, url: request.url, headers: request.headers });
    const [status, body, headers, when] = offered ? (answers.length > 1 ? answers.shift() : answers[0]) : [200, {}, {}];
    void Promise.all([when, new Promise((read) => request.resume().on('end', read))]).then(() => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body)));
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  FakePeerConnection.made.length = 0;
  const url = `http://127.0.0.1:${server.address().port}`;
  const open = (options) => connect({ url, source: new FakeStream([new FakeTrack()]), reconnect: false, ...options });
  try {
    return await use({ open, asked, others, url });
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

const bearers = (requests) => requests.map(({ headers }) => headers.authorization);
const heard = (session, name) => new Promise((resolve) => session.on(name, resolve));

test('a token and headers go with the offer, the session\'s secret with all that is about the session', () =>
  gateway([[200, ANSWER]], async ({ open, asked, others }) => {
    const session = await open({ token: ' t0ken\n', headers: { 'x-team': 'blue' } });
    assert.deepEqual([bearers(asked), asked[0].headers['x-team'], asked[0].headers['content-type']], [['Bearer t0ken'], 'blue', 'application/json']);
    assert.equal((await session.request('', { method: 'PATCH', body: '{}' })).status, 200);
    await session.request('events');
    await session.effects();
    await session.close();
    assert.deepEqual(others.map(({ method, url, headers }) => `${method} ${url} ${headers.authorization}`), [
      'PATCH /api/sessions/abc Bearer the-secret', 'GET /api/sessions/abc/events Bearer the-secret', 'GET /api/effects undefined', 'DELETE /api/sessions/abc Bearer the-secret',
    ]);
    assert.deepEqual([...new Set(others.map(({ headers }) => headers['x-team']))], ['blue']);
    assert.doesNotMatch(JSON.stringify([session, Object.values(session), Object.values(Object.getPrototypeOf(session))]), /the-secret/);
  }));

test('the credentials mode is that of every request', () => {
  assert.equal(new Access({ credentials: 'include' }).init('x', { method: 'POST' }).credentials, 'include');
  assert.equal('credentials' in new Access().init('x'), false);
  assert.throws(() => new Access({ token: 7 }), TypeError);
});

test('a function gives the token, and another one when the gateway refuses the first', () =>
  gateway([[401, problem(401, 'unauthorized')], [200, ANSWER]], async ({ open, asked }) => {
    const told = [];
    const session = await open({
      token: async ({ refused }) => {
        told.push(refused?.problem.type ?? null);
        return `token-${told.length}`;
      },
    });
    assert.deepEqual(bearers(asked), ['Bearer token-1', 'Bearer token-2']);
    assert.deepEqual(told, [null, 'urn:ooblex:problem:unauthorized']);
    await session.close();
  }));

test('a session that nobody waits for any more is ended as soon as its offer is answered', async () => {
  let answer;
  const when = new Promise((resolve) => (answer = resolve));
  await gateway([[200, ANSWER, {}, when], [200, { ...ANSWER, session: 'second' }]], async ({ open, asked, others }) => {
    const [first, second] = [new AbortController(), new AbortController()];
    const until = async (what) => {
      while (!what()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    const given = open({ signal: first.signal });
    await until(() => asked.length === 1);
    first.abort(new Error('left'));
    await assert.rejects(given, /left/);
    const session = await open({ signal: second.signal });
    assert.deepEqual([session.id, others], ['second', []]);
    answer();
    await until(() => others.length);
    assert.deepEqual(others.map(({ method, url, headers }) => `${method} ${url} ${headers.authorization}`), ['DELETE /api/sessions/abc Bearer the-secret']);
    assert.equal(asked.length, 2, 'and not offered again');
    await session.close();
  });
});

test('a refusal has its code, with what the gateway says; it is not asked again for ever', () => {
  const cases = { 401: 'unauthorized', 403: 'forbidden', 421: 'wrong-host', 503: 'offer-rejected' };
  return Promise.all(Object.entries(cases).map(async ([status, code]) => {
    const answer = [Number(status), problem(Number(status), 'x'), { 'retry-after': '7' }];
    await gateway([answer], async ({ open, asked }) => {
      const about = (error) => error instanceof OoblexError && error.code === code && error.problem.status === Number(status) && error.retryAfterMs === 7000;
      await assert.rejects(open({ token: 'x' }), about);
      // After 421 `fetch` itself repeats the request once on another connection.
      const once = status === '421' ? 2 : 1;
      assert.equal(asked.length, once);
      await assert.rejects(open({ token: () => 'x' }), about);
      assert.equal(asked.length - once, code === 'unauthorized' ? 2 : once);
    });
  }));
});

test('a proxy that wants credentials of its own is told from a gateway that does', () =>
  gateway([[401, 'Please log in']], ({ open }) => assert.rejects(open(), (error) => error.code === 'unauthorized' && error.problem === null && /proxy/.test(error.detail))));

test('an application that gives no token, or none that a header can carry, is told so without the token', () =>
  gateway([[200, ANSWER]], async ({ open, asked }) => {
    const cause = new Error('the login failed');
    await assert.rejects(open({ token: () => Promise.reject(cause) }), (error) => error.code === 'no-token' && error.cause === cause);
    await assert.rejects(open({ token: 'two words' }), (error) => error.code === 'no-token' && !error.message.includes('two words'));
    const enough = new AbortController();
    const waiting = open({ token: () => new Promise(() => {}), signal: enough.signal });
    enough.abort(new Error('enough'));
    await assert.rejects(waiting, /enough/);
    assert.equal(asked.length, 0);
    // Without a token there is no header, because the gateway may need none.
    await (await open({ token: () => null })).close();
    assert.deepEqual(bearers(asked), [undefined]);
  }));

test('the time that a person needs to give a token is not the gateway\'s', () =>
  gateway([[200, ANSWER]], async ({ open }) => {
    const token = () => new Promise((resolve) => setTimeout(resolve, 400, 'late'));
    await (await open({ token, timeoutMs: 300 })).close();
  }));

test('candidates are gathered when the answer has named its servers, beside those of the application', () => {
  const [ours, theirs] = [{ urls: 'stun:stun.example' }, { urls: ['turn:turn.example'], username: 'u', credential: 'c' }];
  return gateway([[200, { ...ANSWER, ice_servers: [theirs] }], [200, ANSWER]], async ({ open }) => {
    await (await open({ iceServers: [ours] })).close();
    await (await open({ iceServers: [ours] })).close();
    const [named, without] = FakePeerConnection.made;
    assert.deepEqual(named.did.slice(0, 4), ['createOffer', 'setConfiguration', 'setLocalDescription', 'setRemoteDescription']);
    assert.deepEqual(named.getConfiguration(), { bundlePolicy: 'max-bundle', iceServers: [ours, theirs] });
    assert.deepEqual([without.did[1], without.getConfiguration().iceServers], ['setLocalDescription', [ours]]);
  });
});

test('an expired session comes back with a new token, and the one that was refused is named to the application', () =>
  gateway([[200, ANSWER], [200, { ...ANSWER, session: 'def' }]], async ({ open, asked }) => {
    const told = [];
    const session = await open({ token: ({ refused }) => `token-${told.push(refused?.code ?? null)}`, reconnect: true });
    const back = heard(session, 'reconnected');
    FakePeerConnection.made[0].channel.say({ type: 'bye', reason: 'expired' });
    assert.equal(session.state, 'reconnecting');
    assert.equal((await back).id, 'def');
    assert.deepEqual([told, bearers(asked)], [[null, 'expired'], ['Bearer token-1', 'Bearer token-2']]);
    await session.close();
  }));

test('a gateway that asks to wait is left alone for that long', () =>
  gateway([[200, ANSWER], [503, problem(503, 'unavailable'), { 'retry-after': '60' }]], async ({ open }) => {
    const session = await open({ reconnect: true });
    const tries = [];
    const second = new Promise((resolve) => session.on('reconnecting', (detail) => tries.push(detail) === 2 && resolve()));
    FakePeerConnection.made[0].channel.say({ type: 'bye', reason: 'draining' });
    await second;
    assert.deepEqual(tries.map(({ reason }) => reason), ['draining', 'draining']);
    assert.ok(tries[0].delayMs <= 250 && tries[1].delayMs >= 60_000 && tries[1].delayMs < 61_000, JSON.stringify(tries));
    const ended = heard(session, 'close');
    await session.close();
    assert.deepEqual(await ended, { error: null, reason: null });
  }));

test('a session that asks whether it is still known shows its secret, and believes that it is not', () =>
  gateway([[200, ANSWER]], async ({ open, others }) => {
    const session = await open();
    const [pc] = FakePeerConnection.made;
    pc.connectionState = 'disconnected';
    pc.onconnectionstatechange();
    while (!others.length) await new Promise(setImmediate);
    assert.deepEqual([others[0].url, others[0].headers.authorization, session.state], ['/api/sessions/abc', 'Bearer the-secret', 'interrupted']);
    await session.close();
  }));

test('Retry-After is seconds or a date', () => {
  const now = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
  assert.deepEqual(['120', ' 0 ', 'Wed, 21 Oct 2026 07:28:30 GMT', 'Wed, 21 Oct 2026 07:00:00 GMT', 'soon', '', null].map((value) => retryAfterMs(value, now)), [120_000, 0, 30_000, 0, null, null, null]);
});

test('headers of the application go with the list of effects as well', () =>
  gateway([[200, ANSWER]], async ({ url, others }) => {
    await effects(url, { headers: { 'x-team': 'blue' } });
    assert.equal(others[0].headers['x-team'], 'blue');
  }));
