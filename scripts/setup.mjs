#!/usr/bin/env node
/*
 * Makes a fresh checkout ready: npm packages, Debian packages (when root), build. Does only what is missing.
 * `npm start` and `npm test` run it.
 *
 *   node scripts/setup.mjs [--for start|package|test|long|bench] [--test ARGUMENT ...]
 *                                        what the checkout is for: decides which Debian packages are installed, and
 *                                        which parts are built (build.mjs). Default: test; long: also the packages of
 *                                        the long tests. --test: then runs tests, with the arguments of test.mjs; if
 *                                        these choose tests that need little, only this is built (quick-build.mjs)
 *
 * This file only checks the version of Node.js, in the syntax of Node 12 and without static imports, which Node loads
 * before the check. The steps are in setup-steps.mjs.
 */

/** The oldest supported version of Node.js: major, minor. */
const MIN_NODE = [20, 19]

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < MIN_NODE[0] || (major === MIN_NODE[0] && minor < MIN_NODE[1])) {
  process.stderr.write(
    `userdma: Node.js ${process.versions.node} is too old: ${MIN_NODE.join('.')} or newer is needed ` +
      '(Debian: https://deb.nodesource.com, or nvm install 20)\n',
  )
  process.exitCode = 1
} else import('./setup-steps.mjs')
