// Tests of the page's token: from a link, and from the storage. They use a minimal fake document.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Access } from '../access.js';

/** A fake element that also acts as a dialog. */
class FakeElement extends EventTarget {
  open = false;
  returnValue = '';
  value = '';
  showModal() {
    this.open = true;
  }
  close(value) {
    if (!this.open) return;
    [this.open, this.returnValue] = [false, value];
    this.dispatchEvent(new Event('close'));
  }
  focus() {}
  click() {
    this.dispatchEvent(new Event('click'));
  }
}

/** Returns a page that was opened with this URL fragment, in a tab that stores this token. */
function page(hash, kept) {
  const elements = new Map();
  const at = (id) => elements.get(id) ?? elements.set(id, new FakeElement()).get(id);
  const store = new Map(kept ? [['ooblex-token', kept]] : []);
  const window = new EventTarget();
  Object.assign(globalThis, {
    document: { getElementById: at },
    location: { hash, pathname: '/', search: '?autostart' },
    history: { state: null, replaceState: (state, title, address) => (globalThis.location.hash = address.split('#')[1] ?? '') },
    sessionStorage: { getItem: (key) => store.get(key) ?? null, setItem: (key, value) => store.set(key, value), removeItem: (key) => store.delete(key) },
    addEventListener: window.addEventListener.bind(window),
  });
  const access = new Access(() => {});
  const follow = (next) => {
    globalThis.location.hash = next;
    window.dispatchEvent(new Event('hashchange'));
  };
  return { at, follow, access, give: () => access.give({ refused: null }), kept: () => store.get('ooblex-token') };
}

const settled = () => new Promise(setImmediate);

test('a link brings the first token without a question', async () => {
  const { at, give } = page('#token=first');
  assert.equal(await give(), 'first');
  assert.deepEqual([at('other').open, globalThis.location.hash], [false, '']);
});

test('the same token again is no question', async () => {
  const { at, give } = page('#token=mine', 'mine');
  assert.equal(await give(), 'mine');
  assert.equal(at('other').open, false);
});

for (const [button, answer] of [['other-keep', 'mine'], ['other-use', 'new']]) {
  test(`a link does not replace a token that is kept until the user says so (${button})`, async () => {
    const { at, give, kept } = page('#token=new', 'mine');
    let given = null;
    const asked = give().then((token) => (given = token));
    await settled();
    assert.deepEqual([at('other').open, given, kept(), globalThis.location.hash], [true, null, 'mine', '']);
    at(button).click();
    await asked;
    assert.deepEqual([given, kept(), at('other').open], [answer, answer, false]);
  });
}

test('so it is with a link that is followed later; Escape keeps the token, and several links ask one after the other', async () => {
  const { at, follow, give, kept } = page('', 'mine');
  follow('#token=second');
  follow('#token=third');
  await settled();
  at('other').close('');
  await settled();
  assert.deepEqual([kept(), at('other').open], ['mine', true]);
  at('other-use').click();
  assert.equal(await give(), 'third');
});

test('a token that is refused while the question is open is not asked for when the other one was taken', async () => {
  const { at, access } = page('#token=new', 'mine');
  const asked = access.ask({ code: 'unauthorized', detail: 'It is not known.' });
  await settled();
  at('other-use').click();
  assert.deepEqual([await asked, at('access').open], ['new', false]);
});
