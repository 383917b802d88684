/**
 * Debian's coturn, started by deploy/turn/start.sh: it takes the credentials of a gateway's answer, and relays to the gateway alone. Both
 * know the secret by the same file and by nothing else.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';

import { at } from './deployment.js';
import { freePorts, keep } from './stack.js';

const PROGRAM = process.env.OOBLEX ?? at('target/release/ooblex');
const SECRET = 'a secret of the relay for tests';
const OFFER = 'v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\na=fingerprint:sha-256 ' + Array(32).fill('AB').join(':') + '\r\na=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n';
/** An address of this machine that is not its loopback, to which coturn relays nothing of itself. */
const own = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

test('coturn takes the credentials that the gateway gives, and relays to the gateway only', async (t) => {
  if (!own) return t.skip('this machine has no address but its loopback');
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-turn-'));
  const [secret, configuration] = [join(folder, 'secret'), join(folder, 'turnserver.conf')];
  const [port, http, media] = await freePorts(3, '127.0.0.1');
  const running = [];
  try {
    writeFileSync(secret, `${SECRET}\n`);
    const turn = { OOBLEX_ADVERTISE: own, TURN_SECRET_FILE: secret, TURN_CONFIGURATION: configuration, TURN_PORT: `${port}` };
    const answers = () => /reflexive/.test(spawnSync('turnutils_stunclient', ['-p', `${port}`, '127.0.0.1'], { encoding: 'utf8', timeout: 2_000 }).stdout);
    running.push(await keep('coturn', 'sh', [at('deploy/turn/start.sh')], { env: turn, cwd: folder, isReady: answers }));
    assert.equal(statSync(configuration).mode & 0o077, 0, 'nobody else reads the secret');
    const env = {
      OOBLEX_SERVE__LISTEN: `127.0.0.1:${http}`,
      OOBLEX_MEDIA__LISTEN: `127.0.0.1:${media}`,
      OOBLEX_SERVE__WORKERS: '1',
      OOBLEX_WORKER__EFFECTS: 'delay',
      OOBLEX_DIAGNOSTICS__EFFECTS: 'true',
      OOBLEX_SERVE__DEFAULT_EFFECT: 'none',
      OOBLEX_TURN__URLS: `turn:127.0.0.1:${port}?transport=udp`,
      OOBLEX_TURN__SECRET_FILE: secret,
    };
    running.push(await keep('gateway', PROGRAM, ['serve'], { env, cwd: folder, isReady: (said) => /is ready: http/.test(said) }));
    const body = JSON.stringify({ type: 'offer', sdp: OFFER });
    const answer = await fetch(`http://127.0.0.1:${http}/offer`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const { ice_servers: [{ urls, username, credential }] } = await answer.json();
    assert.deepEqual(urls, [`turn:127.0.0.1:${port}?transport=udp`]);
    assert.match(username, /^\d+:[0-9a-f]{16}$/);
    const user = (name) => name.split(':')[1];
    const again = await fetch(`http://127.0.0.1:${http}/offer`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    assert.equal(user((await again.json()).ice_servers[0].username), user(username), 'one user for all sessions of an address');
    assert.match(readFileSync(configuration, 'utf8'), /^user-quota=8$/m);

    const path = [process.env.PATH, '/usr/bin'].join(delimiter);
    const ask = (password, peer) => spawnSync('turnutils_uclient', ['-v', '-c', '-n', '1', '-m', '1', '-u', username, '-w', password, '-p', `${port}`, '-e', peer, '127.0.0.1'], { env: { PATH: path }, encoding: 'utf8', timeout: 5_000 }).stdout;
    const allowed = ask(credential, own);
    assert.match(allowed, /Received relay addr/);
    assert.doesNotMatch(allowed, /Forbidden IP/);
    for (const elsewhere of ['192.0.2.1', '127.0.0.1']) assert.match(ask(credential, elsewhere), /error 403 \(Forbidden IP\)/, elsewhere);
    assert.doesNotMatch(ask('a wrong one', own), /Received relay addr/);
  } finally {
    for (const one of running) await one.stop('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
});
