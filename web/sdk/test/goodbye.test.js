// Every reason for which the gateway's code ends a session is known to the SDK, its types, its
// README and the page.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { END_TITLES } from '../../page/texts.js';
import { REASONS, goodbye } from '../goodbye.js';

const read = (path) => readFileSync(new URL(path, import.meta.url), 'utf8');
const given = [.../fn bye\(.*?\n\}/s.exec(read('../../../crates/gateway/src/data_channel.rs'))[0].matchAll(/ByeReason::\w+ => "(\w+)"/g)].map(([, reason]) => reason);

test('every reason of the gateway is known, and none that it does not give', () => {
  assert.ok(given.length >= 8);
  assert.deepEqual(Object.keys(REASONS).sort(), given.toSorted());
  const types = /type EndReason =(.*?);/s.exec(read('../ooblex.d.ts'))[1];
  assert.deepEqual([...types.matchAll(/'(\w+)'/g)].map(([, reason]) => reason).sort(), given.toSorted());
  const rows = read('../README.md').split('\n').filter((line) => line.startsWith('| `') && / \| (yes|no|with a `token` function) \|$/.test(line));
  const written = rows.flatMap((row) => [...row.split('|')[1].matchAll(/`(\w+)`/g)].map(([, reason]) => reason));
  assert.deepEqual(written.sort(), given.toSorted());
});

test('the page has a title for every end that is final', () => {
  const final = given.filter((reason) => !goodbye({ reason }, { canRenew: true }).comesBack);
  for (const reason of final) assert.ok(END_TITLES[reason], reason);
});

test('too many data channels end a session for good, an error in the gateway does not', () => {
  const about = (reason) => goodbye({ reason }, { canRenew: false });
  assert.equal(about('too_many_channels').comesBack, false);
  assert.match(about('too_many_channels').error.detail, /more data channels than a session may/);
  assert.equal(about('broken').comesBack, true);
  // Properties that every object inherits are not reasons.
  for (const reason of ['constructor', 'toString', '__proto__', 'something newer', null]) assert.deepEqual([about(reason).comesBack, about(reason).error.code], [true, 'closed'], `${reason}`);
});
