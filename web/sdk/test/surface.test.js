// Tests that the code has exactly the names that surface.js lists, which are those of ooblex.d.ts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import './fakes.js';
import { ERROR, EVENTS, EXPORTS, OOBLEX, SESSION } from './surface.js';
import * as sdk from '../ooblex.js';

const sorted = (names) => [...new Set(names)].sort();
const assertSame = (found, listed) => assert.deepEqual(sorted(found), sorted(Object.keys(listed)));

test('the module exports what is declared', () => {
  assertSame(Object.keys(sdk), EXPORTS);
  assertSame(Object.keys(sdk.Ooblex), OOBLEX);
});

test('a session has the properties and methods that are declared', () => {
  assertSame(Object.getOwnPropertyNames(sdk.Session.prototype).filter((name) => name !== 'constructor'), SESSION);
});

test('a session emits the events that are declared', () => {
  const source = readFileSync(new URL('../session.js', import.meta.url), 'utf8');
  assertSame([...source.matchAll(/#emit\('(\w+)'/g)].map(([, name]) => name), EVENTS);
});

test('an error has the properties that are declared', () => {
  assertSame(Object.keys(new sdk.OoblexError('closed')), ERROR);
});
