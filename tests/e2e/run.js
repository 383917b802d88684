#!/usr/bin/env node
/** Runs the files of tests: those in BESIDE two at a time, then each of the others alone on the machine. */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Files whose tests judge no rate of frames, and no time without patience for a busy machine. */
const BESIDE = ['access', 'colours', 'embed', 'events', 'offers', 'own', 'page', 'recordings', 'reconnect', 'sessions', 'shapes', 'switching'].map((name) => `${name}.test.js`);
/** A file that takes longer than this hangs. */
const LONGEST_MS = 900_000;

const here = fileURLToPath(new URL('.', import.meta.url));
const alone = readdirSync(here).filter((name) => name.endsWith('.test.js') && !BESIDE.includes(name));
const run = (files, atOnce) => spawnSync(process.execPath, ['--test', `--test-concurrency=${atOnce}`, `--test-timeout=${LONGEST_MS}`, ...files], { cwd: here, stdio: 'inherit' }).status;
const statuses = [run(BESIDE, 2), run(alone, 1)];
process.exitCode = statuses.every((status) => status === 0) ? 0 : 1;
