/** Sends what changes often: at most every 60 ms, and never while an earlier one is under way. The latest wins. */

const EVERY_MS = 60;

/** `work` is called without arguments and takes what is newest then; it does not fail. */
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
