import assert from 'node:assert/strict';
import { test } from 'node:test';

import { audienceText, scaledNotice, watchProblem, watchText } from '../texts.js';

test('a picture that is scaled down by the gateway has a notice with both sizes', () => {
  const [large, small] = [{ width: 3840, height: 2160 }, { width: 1920, height: 1080 }];
  const { title, text, urgent } = scaledNotice({ received: large, processed: small });
  assert.match(`${title} ${text}`, /3840×2160.*1920×1080.*lower resolution/);
  assert.equal(urgent, false);
  for (const stats of [{ received: small, processed: small }, { received: null, processed: null }, {}]) assert.equal(scaledNotice(stats), null);
});

test('the number of viewers is said in words', () => {
  assert.deepEqual([null, 0, 1, 2].map(audienceText), ['Nobody is watching yet.', 'Nobody is watching yet.', 'One person is watching.', '2 people are watching.']);
});

test('a viewer is told why there is no picture, or why it is held', () => {
  const title = (about) => watchText({ state: 'live', isAway: false, hasPicture: false, ...about }).title;
  assert.equal(title({ state: 'connecting' }), 'Connecting…');
  assert.equal(title({ state: 'waiting', code: 'room-empty' }), 'Nobody is sending yet');
  assert.equal(title({ state: 'waiting', code: 'room-empty', hasPicture: true }), 'The stream has ended');
  assert.equal(title({ state: 'waiting', code: 'room-full' }), 'All places are taken');
  assert.match(title({ isAway: true, hasPicture: true }), /away.*held/);
  assert.equal(title({ isAway: true }), 'Nobody is sending yet');
  assert.match(title({ state: 'reconnecting', hasPicture: true }), /lost/);
});

test('a viewer is told what it may do about an error', () => {
  assert.deepEqual(watchProblem({ code: 'link' }), { title: 'This link is not complete', text: 'Ask whoever sent it to you to send it again.', isFinal: true });
  assert.deepEqual(watchProblem(new TypeError('no peer connections')), { title: 'Something went wrong in this page', text: 'no peer connections', isFinal: false });
  const { title, text, isFinal } = watchProblem({ code: 'forbidden', message: 'It needs the role view.', detail: 'It needs the role view.' });
  assert.deepEqual([title, text, isFinal], ['You may not watch this', 'It needs the role view.', false]);
});
