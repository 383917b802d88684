// Tests that the code has exactly the names that surface.js lists, which are those of ooblex.d.ts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import './fakes.js';
import { ERROR, EVENTS, EXPORTS, OOBLEX, SESSION, VIEWER, VIEWER_EVENTS } from './surface.js';
import * as sdk from '../ooblex.js';

const sorted = (names) => [...new Set(names)].sort();
const assertSame = (found, listed) => assert.deepEqual(sorted(found), sorted(Object.keys(listed)));

test('the module exports what is declared', () => {
  assertSame(Object.keys(sdk), EXPORTS);
  assertSame(Object.keys(sdk.Ooblex), OOBLEX);
});

test('a session and a viewer have the properties and methods that are declared', () => {
  const names = (kind) => Object.getOwnPropertyNames(kind.prototype).filter((name) => name !== 'constructor');
  assertSame(names(sdk.Session), SESSION);
  assertSame(names(sdk.Viewer), VIEWER);
});

test('a session and a viewer emit the events that are declared', () => {
  for (const [file, events] of [['session', EVENTS], ['viewer', VIEWER_EVENTS]]) {
    const source = readFileSync(new URL(`../${file}.js`, import.meta.url), 'utf8');
    assertSame([...source.matchAll(/#emit\('(\w+)'/g)].map(([, name]) => name), events);
  }
});

test('an error has the properties that are declared', () => {
  assertSame(Object.keys(new sdk.OoblexError('closed')), ERROR);
});
