// Tests of the page's texts about changes by somebody else, and about reconnecting.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { changeNotice } from '../changes.js';
import { reconnectingText } from '../texts.js';

const TITLES = { background_blur: 'Background blur', face_anonymize: 'Face anonymisation', sepia: 'Sepia', none: 'No effect', glow: 'Glow' };
const titleOf = (name) => name.split('+').map((part) => TITLES[part]).join(' + ');
const notice = (previous, effect, { by = 'api', params = {}, before = {}, isOwn } = {}) => changeNotice({ effect, params, by, previous: { effect: previous, params: before } }, titleOf, isOwn);

test('an effect that was changed by the operator is named', () => {
  const { title, urgent } = notice('sepia', 'background_blur');
  assert.deepEqual([title, urgent], ['The effect was changed to Background blur by the operator', false]);
  assert.match(notice('sepia', 'sepia', { params: { strength: 0.2 } }).title, /^The settings of Sepia were changed/);
  assert.match(notice('glow', 'glow', { by: 'reload' }).title, /^Glow was replaced/);
});

test('a picture that is no longer hidden is urgent', () => {
  for (const [before, now] of [['background_blur', 'none'], ['background_blur', 'sepia'], ['face_anonymize+sepia', 'sepia'], ['background_blur', 'face_anonymize'], ['sepia', 'none'], [null, 'none']]) {
    const { title, text, urgent } = notice(before, now);
    assert.ok(urgent, `${before} to ${now}`);
    assert.match(title, /was taken off by the operator$/);
    assert.match(text, /Choose an effect, mute the picture, or stop/);
  }
  assert.match(notice('background_blur', 'none').title, /^Background blur/);
  assert.match(notice('face_anonymize+sepia', 'sepia').title, /^Face anonymisation was/);
  for (const [before, now] of [['none', 'sepia'], ['background_blur', 'background_blur+sepia'], ['background_blur+sepia', 'background_blur'], ['sepia', 'sepia']]) {
    assert.equal(notice(before, now).urgent, false, `${before} to ${now}`);
  }
});

test('the page does not know what a custom effect hides', () => {
  assert.equal(notice('glow', 'sepia', { isOwn: (name) => name === 'glow' }).urgent, true);
});

test('what hides less is urgent, alone and in a chain', () => {
  assert.equal(notice('background_blur', 'background_blur', { before: { strength: 0.8 }, params: { strength: 0.1 } }).urgent, true);
  assert.equal(notice('background_blur', 'background_blur', { before: { strength: 0.1 }, params: { strength: 0.8 } }).urgent, false);
  const [before, params] = [0.8, 0.1].map((strength) => ({ background_blur: { strength }, sepia: {} }));
  assert.match(notice('background_blur+sepia', 'background_blur+sepia', { before, params }).title, /^Background blur was made weaker/);
});

test('while another connection is made, the page says why', () => {
  assert.match(reconnectingText({ reason: null, delayMs: 250 }), /^The connection was lost\. The last picture is held; trying again…$/);
  assert.match(reconnectingText({ reason: 'draining', delayMs: 30_000 }), /being replaced.*asks to wait for 30 s/);
  assert.match(reconnectingText({ reason: 'expired', delayMs: 200 }), /access has expired/);
});
