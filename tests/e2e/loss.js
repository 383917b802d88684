#!/usr/bin/env node
/**
 * Measures how many frames come back over a network that loses packets in both directions, from a
 * browser with RTX (RFC 4588) and from one without, which alternate.
 *
 * usage: node loss.js [--loss 0.01,0.03,0.05] [--seconds 10] [--codec vp8] [--effect background_blur]
 */

import { parseArgs } from 'node:util';

import { withSession } from './harness.js';
import { relayed, withoutRtx } from './relay.js';

const WARM_UP_MS = 3_000;
const DELAY_MS = 20;

const { values: asked } = parseArgs({
  options: {
    loss: { type: 'string', default: '0.01,0.03,0.05' },
    seconds: { type: 'string', default: '10' },
    codec: { type: 'string', default: 'vp8' },
    effect: { type: 'string', default: 'background_blur' },
  },
});

for (const loss of asked.loss.split(',').map(Number)) {
  const [rtx, none] = [await share(loss, (sdp) => sdp), await share(loss, withoutRtx)];
  console.log(`${100 * loss} % lost each way: ${percent(rtx)} of the frames come back with RTX, ${percent(none)} without, ratio ${(none / rtx).toFixed(2)}`);
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/** Returns the share of the camera's frames that come back. `offer` changes the SDP of the offer. */
async function share(loss, offer) {
  return withSession({}, async ({ page, connect, moreFrames, seen }) => {
    const relay = await relayed(page, { loss, delayMs: DELAY_MS, offer });
    try {
      await connect({ effect: asked.effect, codec: asked.codec });
      await moreFrames(30);
      await page.waitForTimeout(WARM_UP_MS);
      const count = async () => [(await seen()).length, (await seen('source')).length];
      const [back, sent] = await count();
      await page.waitForTimeout(1000 * Number(asked.seconds));
      const [backAfter, sentAfter] = await count();
      return (backAfter - back) / (sentAfter - sent);
    } finally {
      relay.close();
    }
  });
}
