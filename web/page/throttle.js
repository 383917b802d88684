/**
 * Throttles frequent changes: at most one call every 60 ms, and none while an earlier one is
 * pending. The latest wins.
 */

const EVERY_MS = 60;

/** `work` is called without arguments, reads the newest values itself, and never rejects. */
export function latest(work) {
  let timer = null;
  let working = false;
  let again = false;
  const send = () => {
    again = working;
    if (!working) timer ??= setTimeout(run, EVERY_MS);
  };
  const run = async () => {
    timer = null;
    working = true;
    await work();
    working = false;
    if (again) send();
  };
  const cancel = () => {
    clearTimeout(timer);
    timer = null;
    again = false;
  };
  return { send, cancel };
}
