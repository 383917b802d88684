/**
 * Tests a viewer whose network blocks UDP to the gateway: the browser is in an office behind a
 * firewall, and Debian's coturn, started by deploy/turn/start.sh, runs at the edge of that network.
 * Media comes through coturn, or by TCP.
 * Each is in its own network namespace; the stack runs on this machine.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { clip } from '../e2e/clip.js';
import { BROWSER, startBrowser } from '../e2e/harness.js';
import { assertHidden } from '../e2e/judge.js';
import { measure } from '../e2e/measure.js';
import { at } from './deployment.js';
import { officeBehindFirewall } from './machines.js';
import { freePorts, keep, PATIENCE_MS, startStack, until } from './stack.js';

const SECRET = 'a secret of the relay for tests';
const FRAMES = 60;
const played = clip({ width: 640, height: 480, measure });

/**
 * Starts the stack on this machine, coturn on the firewall, and the page in the office, which
 * starts a session. `udp`: whether UDP reaches coturn; `turn`: the protocols by which the gateway
 * tells the browser to reach coturn; `tcp`: whether the gateway takes media by TCP. `use` gets the
 * page, the answer to its offer, the addresses of coturn, the stack, the network and the TCP port.
 */
async function withOffice(t, { udp, turn = [], tcp = false }, use) {
  const network = officeBehindFirewall({ udp });
  if (network.missing) return t.skip(`there is no other network to play: ${network.missing}`);
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-firewall-'));
  let [relay, stack, browser] = [];
  try {
    const secret = join(folder, 'secret');
    writeFileSync(secret, `${SECRET}\n`);
    // A port that is free here is also free there, where nothing else runs.
    const [port] = await freePorts(1, '127.0.0.1');
    const [tcpPort] = await freePorts(1, network.here);
    const env = { OOBLEX_ADVERTISE: network.here, TURN_SECRET_FILE: secret, TURN_CONFIGURATION: join(folder, 'turnserver.conf'), TURN_PORT: `${port}` };
    const answers = () => /reflexive/.test(network.firewall.run('timeout', '2', 'turnutils_stunclient', '-p', `${port}`, network.relay).stdout);
    relay = await keep('coturn', network.firewall.program('sh'), [at('deploy/turn/start.sh')], { env, cwd: folder, isReady: answers });

    const urls = turn.map((transport) => `turn:${network.relay}:${port}?transport=${transport}`);
    const given = urls.length > 0 ? { OOBLEX_TURN_URLS: urls.join() } : {};
    const options = { OOBLEX_TURN__SECRET_FILE: secret, ...(tcp ? { OOBLEX_MEDIA__TCP_LISTEN: `${network.here}:${tcpPort}` } : {}) };
    stack = await startStack({ host: network.here, given, options });
    browser = await startBrowser(played, network.office.program(BROWSER));
    const { page, errors } = await browser.page(stack.url, { ignoreHTTPSErrors: true });
    await page.evaluate((layout) => {
      probe.layout = layout;
      window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) {
          super(...given);
          probe.keep('pc', this);
          this.addEventListener('track', ({ track }) => track.kind === 'video' && probe.watch('output', track));
        }
      };
    }, played.layout);
    const answered = page.waitForResponse((response) => new URL(response.url()).pathname === '/offer', { timeout: PATIENCE_MS });
    const [answer] = await Promise.all([answered.then((response) => response.json()), page.getByRole('button', { name: 'Start camera' }).click({ timeout: PATIENCE_MS })]);
    await use({ page, errors, answer, urls, stack, network, tcpPort });
  } catch (error) {
    for (const [name, one] of Object.entries({ 'the gateway': stack?.running.gateway, coturn: relay })) {
      if (one) error.message += `\n--- ${name} wrote:\n${one.said().split('\n').slice(-25).join('\n')}`;
    }
    throw error;
  } finally {
    await browser?.close();
    await stack?.end();
    await relay?.stop();
    network.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Returns the browser's statistics of its connection: the candidate pair in use, all pairs that
 * were answered, and the received video.
 */
const report = (page) =>
  page.evaluate(async () => {
    const all = await probe.kept.pc.getStats();
    const entries = [...all.values()];
    const pair = (one) => ({ local: all.get(one.localCandidateId), remote: all.get(one.remoteCandidateId) });
    const transport = entries.find(({ type }) => type === 'transport');
    return {
      selected: pair(all.get(transport.selectedCandidatePairId)),
      answering: entries.filter(({ type, responsesReceived }) => type === 'candidate-pair' && responsesReceived > 0).map(pair),
      video: entries.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video'),
    };
  });

// Where both protocols reach the relay, the browser takes the one that answers first.
for (const { name, udp, turn, protocol } of [
  { name: 'a firewall that drops UDP to the gateway', udp: true, turn: ['udp'], protocol: 'udp' },
  { name: 'a firewall that drops all UDP', udp: false, turn: ['udp', 'tcp'], protocol: 'tcp' },
]) {
  test(`behind ${name}, processed video comes through the relay, which the browser reaches by ${protocol.toUpperCase()}`, (t) =>
    withOffice(t, { udp, turn }, async ({ page, errors, answer, urls, stack, network }) => {
      const [{ username, ...server }, ...others] = answer.ice_servers;
      assert.deepEqual([server.urls, others], [urls, []]);
      const [expiry, user] = username.split(':');
      assert.match(user, /^[0-9a-f]{16}$/);
      assert.ok(Number(expiry) > Date.now() / 1000, `credentials that are valid until ${expiry}`);

      await page.waitForFunction((count) => probe.seen.output?.length >= count, FRAMES, { timeout: PATIENCE_MS });
      const { selected, answering, video } = await report(page);
      const { candidateType, address, relayProtocol } = selected.local;
      assert.deepEqual({ candidateType, address, relayProtocol }, { candidateType: 'relay', address: network.relay, relayProtocol: protocol });
      assert.deepEqual([selected.remote.address, selected.remote.port], [network.here, stack.ports.media]);
      assert.deepEqual(answering.filter(({ local }) => local.candidateType !== 'relay'), [], 'nothing comes past the relay');
      assert.ok(video.framesDecoded >= FRAMES, `${video.framesDecoded} frames were decoded`);
      assertHidden(await page.evaluate(() => probe.seen.output), played, ['blurred']);
      assert.deepEqual(errors, []);
    }));
}

test('behind a firewall that drops all UDP, processed video comes by TCP without a relay', (t) =>
  withOffice(t, { udp: false, tcp: true }, async ({ page, errors, answer, network, tcpPort }) => {
    assert.equal(answer.ice_servers, undefined);
    await page.waitForFunction((count) => probe.seen.output?.length >= count, FRAMES, { timeout: PATIENCE_MS });
    const { selected, video } = await report(page);
    const { protocol, address, port } = selected.remote;
    assert.deepEqual({ protocol, address, port }, { protocol: 'tcp', address: network.here, port: tcpPort });
    assert.ok(video.framesDecoded >= FRAMES, `${video.framesDecoded} frames were decoded`);
    assertHidden(await page.evaluate(() => probe.seen.output), played, ['blurred']);
    assert.deepEqual(errors, []);
  }));

test('behind a firewall that drops UDP to the gateway, there is no connection when [turn] names no relay', (t) =>
  withOffice(t, { udp: true }, async ({ page, answer, stack }) => {
    assert.equal(answer.ice_servers, undefined);
    const says = () => page.locator('body').innerText();
    await until('the page to say it', async () => /UDP media port is closed by a firewall/.test(await says())).catch(async ({ message }) => assert.fail(`${message}; it says: ${await says()}`));
    await until('the log to say it', () => stack.running.gateway.said().includes('no packet of the browser has come to the media port'));
    assert.equal(await page.evaluate(() => probe.seen.output?.length ?? 0), 0);
  }));
