/**
 * A bad network between a browser and the media port of a gateway: datagrams are delayed, and some
 * are lost.
 *
 * Owns its sockets and the losses. Refuses to know the contents of datagrams. The same seed loses
 * the same share, but not the same packets, because browsers never send exactly the same twice.
 */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** The media address in an answer's SDP. */
const CANDIDATE = /^(a=candidate:\S+ 1 udp \d+ )(\S+) (\d+)( typ host.*)$/gim;

/**
 * Puts a relay into each answer that the page gets from `POST /offer`. `loss` is the share that is
 * lost in each direction; `delayMs` is the delay of each datagram; `offer` changes the SDP of each
 * offer; `onDown` gets each datagram of the gateway. Returns `{passed, lost, cut(), restore(),
 * until(condition), close()}`; while it is cut, everything is lost.
 */
export async function relayed(page, { loss = 0, delayMs = 0, seed = 1, offer = (sdp) => sdp, onDown = () => {} } = {}) {
  const relay = { passed: 0, lost: 0 };
  const [outer, inner] = [createSocket('udp4'), createSocket('udp4')];
  const random = generator(seed);
  const waiting = new Set();
  let [browser, gateway, isCut, isClosed] = [null, null, false, false];
  for (const socket of [outer, inner]) {
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
  }
  const pass = (socket, datagram, to) => {
    const isLost = isCut || random() < loss;
    relay[isLost ? 'lost' : 'passed'] += 1;
    if (!isLost) setTimeout(() => !isClosed && socket.send(datagram, to.port, to.address), delayMs);
    for (const check of waiting) check();
  };
  outer.on('message', (datagram, from) => {
    browser = from;
    if (gateway) pass(inner, datagram, gateway);
  });
  inner.on('message', (datagram) => {
    onDown(datagram);
    if (browser) pass(outer, datagram, browser);
  });
  await page.route('**/offer', async (route) => {
    const asked = route.request().postDataJSON();
    const response = await route.fetch({ postData: JSON.stringify({ ...asked, sdp: offer(asked.sdp) }) });
    const answer = await response.json();
    const sdp = answer.sdp.replace(CANDIDATE, (_, before, address, port, after) => {
      gateway = { address, port: Number(port) };
      return `${before}127.0.0.1 ${outer.address().port}${after}`;
    });
    await route.fulfill({ response, json: { ...answer, sdp } });
  });
  return Object.assign(relay, {
    cut: () => (isCut = true),
    restore: () => (isCut = false),
    /** Resolves with the first datagram after which the condition holds. */
    until: (condition) =>
      new Promise((resolve) => {
        const check = () => condition() && waiting.delete(check) && resolve();
        waiting.add(check);
      }),
    close: () => {
      isClosed = true;
      outer.close();
      inner.close();
    },
  });
}

/** Returns a generator of random numbers in 0..1 (mulberry32). */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns an offer without RTX, as of a small client. */
export function withoutRtx(sdp) {
  const lines = sdp.split('\r\n');
  const types = lines.flatMap((line) => /^a=rtpmap:(\d+) rtx\//.exec(line)?.[1] ?? []);
  const sources = lines.flatMap((line) => /^a=ssrc-group:FID \d+ (\d+)/.exec(line)?.[1] ?? []);
  const isRtx = (line) => line.startsWith('a=ssrc-group:FID') || types.some((type) => new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):${type} `).test(line)) || sources.some((source) => line.startsWith(`a=ssrc:${source} `));
  const withoutTypes = (line) => (line.startsWith('m=video') ? line.split(' ').filter((word) => !types.includes(word)).join(' ') : line);
  return lines.filter((line) => !isRtx(line)).map(withoutTypes).join('\r\n');
}
