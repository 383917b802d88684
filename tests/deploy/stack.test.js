/**
 * Tests deploy/ as processes: the page through nginx in a real Chromium, then metrics and alerts.
 * There is one stack for all tests, because it starts slowly; each test continues from the one
 * before.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { clip } from '../e2e/clip.js';
import { openPage, startBrowser } from '../e2e/harness.js';
import { assertHidden } from '../e2e/judge.js';
import { measure } from '../e2e/measure.js';
import { alerts, measured, panels } from './deployment.js';
import { startStack, until } from './stack.js';

const EFFECTS = [
  { effect: 'background_blur', params: {}, ways: ['blurred'] },
  { effect: 'face_detection', params: {}, ways: ['framed', 'painted', 'blurred'] },
  { effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '180p' }, ways: ['painted', 'blurred'] },
];
/** Maximum number of sessions of the gateway. */
const SESSIONS = 10;
const played = clip({ width: 640, height: 480, measure });
let stack;
let browser;
let opened;
let refused;
const began = Date.now();

before(async () => {
  stack = await startStack({ given: { OOBLEX_SESSIONS: `${SESSIONS}`, OOBLEX_SESSIONS_PER_ADDRESS: '256' }, options: { OOBLEX_DIAGNOSTICS__EFFECTS: 'true', OOBLEX_LIMITS__UNCONNECTED_SESSIONS: '256', OOBLEX_LIMITS__UNCONNECTED_PER_ADDRESS: '256', OOBLEX_LIMITS__OFFERS_PER_MINUTE: '100000' } });
  // An offer that nobody completes: its sessions can never connect.
  const offer = 'v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\na=fingerprint:sha-256 ' + Array(32).fill('AB').join(':') + '\r\na=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n';
  const ask = () => fetch(`http://127.0.0.1:${stack.ports.gateway}/offer`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ type: 'offer', sdp: offer }) });
  for (let session = 0; session < SESSIONS; session += 1) {
    const answer = await ask();
    assert.equal(answer.status, 200, await answer.text());
  }
  refused = await ask();
  const started = await startBrowser(played);
  browser = { ...started, page: (url, options) => started.page(url, { ignoreHTTPSErrors: true, ...options }) };
});

after(async () => {
  await browser?.close();
  await stack?.end();
});

test('nginx takes the configuration, and shows the world no more than the page and the API', async () => {
  assert.match(stack.nginxTest.said(), /test is successful/);
  assert.match(stack.certificate.said(), /made a self-signed certificate for DNS:localhost,IP:127\.0\.0\.1/);
  assert.match((await stack.ask('')).body, /<title>/);
  const { effects } = JSON.parse((await stack.ask('api/effects')).body);
  assert.ok(effects.length >= 4);
  for (const hidden of ['metrics', 'api/sessions', 'api/pulls', 'api/pushes/1', 'api/effects/reload']) assert.equal((await stack.ask(hidden)).status, 404, hidden);
  const redirect = await fetch(new URL('a?b=c', stack.http), { redirect: 'manual' });
  assert.deepEqual([redirect.status, redirect.headers.get('location')], [308, 'https://127.0.0.1/a?b=c']);
  const away = await stack.ask('grafana/');
  assert.equal(away.status, 503, 'Grafana does not run here, and is said to be away');
});

test('every session beyond the limit is refused, and the alert that says so comes and goes', async () => {
  assert.equal(refused.status, 503, await refused.text());
  // These sessions end after ten seconds, and this machine may be slower than that.
  await until('OoblexGatewayFull', () => stack.haveFired(['OoblexGatewayFull'], began));
  const [{ value }] = await stack.query('max_over_time(ooblex_sessions[10m])');
  assert.equal(value[1], `${SESSIONS}`);
});

test('a session that never connects is counted by its cause, and its operator told why', async () => {
  await until('the end of that session', () => stack.running.gateway.said().includes('no packet of the browser has come to the media port'));
  await until('OoblexSetUpsFail', () => stack.haveFired(['OoblexSetUpsFail'], began));
  await until('all of them to be counted', async () => {
    const [failed] = await stack.query('ooblex_session_setup_failures_total{cause="no_packets"}');
    return failed.value[1] === `${SESSIONS}`;
  });
  await until('OoblexGatewayFull to go', async () => !(await stack.alerts()).includes('OoblexGatewayFull'));
});

test('a browser gets every effect through nginx', async () => {
  opened = await openPage(browser, { url: stack.url }, played);
  for (const { effect, params, ways } of EFFECTS) {
    await opened.connect({ effect, params });
    await opened.moreFrames(45);
    const records = await opened.seen();
    if (effect === 'face_detection') assert.match(await opened.firstOf('events'), /^(event|data|id|:)/m, 'events come through nginx while they happen');
    await opened.close();
    assertHidden(records, played, ways);
    await until('the session to end', async () => (await stack.query('ooblex_sessions'))[0].value[1] === '0');
  }
  assert.deepEqual(opened.errors, []);
});

test('every target is up, and every expression of dashboards and alerts has a series under load', async () => {
  await opened.connect({ effect: 'background_blur' });
  await opened.moreFrames(30);
  await until('all targets to be up', async () => {
    const { activeTargets } = await stack.api('targets');
    assert.equal(activeTargets.length, 5);
    return activeTargets.every(({ health }) => health === 'up');
  });
  const asked = [
    ...panels().map(({ dashboard, panel, expr }) => [`${dashboard}: ${panel}`, expr.replaceAll('$__rate_interval', '1m')]),
    ...alerts().map(({ alert, expr }) => [alert, measured({ expr })]),
  ];
  assert.ok(asked.length > 70);
  for (const [name, expr] of asked) {
    await until(`${name}: ${expr}`, async () => (await stack.query(expr)).some(({ value }) => !Number.isNaN(Number(value[1].replace('+Inf', 'Infinity')))));
  }
});

test('when all workers die, the alerts come, and go when they are back', async () => {
  const killed = Date.now();
  await stack.killWorkers();
  const came = ['OoblexNoWorkers', 'OoblexTargetDown', 'OoblexPicturesOld', 'OoblexPicturesFrozen'];
  await until(`${came}`, () => stack.haveFired(came, killed));
  await until('one for each', async () => (await stack.query('ALERTS{alertname="OoblexTargetDown", alertstate="firing", job="ooblex-worker"}')).length === 3);
  await stack.startWorkers();
  await until('the alerts to go', async () => {
    const firing = await stack.alerts();
    return !firing.includes('OoblexNoWorkers') && !firing.includes('OoblexTargetDown');
  });
  await opened.moreFrames(30);
});

test('when Redis stops, the alert comes, and goes when it is back; the session lives on', async () => {
  await stack.stopRedis();
  await until('OoblexRedisDown', async () => (await stack.alerts()).includes('OoblexRedisDown'));
  await stack.startRedis();
  await until('the alert to go', async () => !(await stack.alerts()).includes('OoblexRedisDown'));
  await opened.moreFrames(30);
  const records = await opened.seen();
  assertHidden(records, played, ['blurred']);
});

test('when sessions are more than workers manage, the alerts come, and go with the load', async () => {
  await opened.close();
  await until('the session to end', async () => (await stack.query('ooblex_sessions'))[0].value[1] === '0');
  // A sleeping worker uses no CPU, so the overload is the same on every machine. A single session
  // would have its results after 0.4 s; with ten sessions on three workers, each waits for 1.3 s.
  const pause = ['--effect', 'delay', '--set', 'delay.ms=400'];
  await stack.startLoad([...pause, '--sessions', `${SESSIONS}`, '--size', '320x240', '--fps', '15', '--duration', '300']);
  const came = ['OoblexQueueOld', 'OoblexProcessedFpsLow', 'OoblexPicturesOld', 'OoblexPicturesFrozen', 'OoblexWorkersSaturated'];
  for (const name of came) await until(name, async () => (await stack.alerts()).includes(name));
  const figures = await stack.stopLoad();
  await until('the alerts to go', async () => {
    const firing = await stack.alerts();
    return !came.some((name) => firing.includes(name));
  });
  assert.deepEqual([figures.raw_leaks, figures.setup_failures, figures.sessions_lost], [0, 0, 0]);
});
