import assert from 'node:assert/strict';
import { test } from 'node:test';

import { scaledNotice } from '../texts.js';

test('a picture that is scaled down by the gateway has a notice with both sizes', () => {
  const [large, small] = [{ width: 3840, height: 2160 }, { width: 1920, height: 1080 }];
  const { title, text, urgent } = scaledNotice({ received: large, processed: small });
  assert.match(`${title} ${text}`, /3840×2160.*1920×1080.*lower resolution/);
  assert.equal(urgent, false);
  for (const stats of [{ received: small, processed: small }, { received: null, processed: null }, {}]) assert.equal(scaledNotice(stats), null);
});
