/*
 * Says how many test files have ended, and which run and for how long, from the events of Node's test runner. The
 * runner prints the tests of a file when all files before it have ended, and so may print nothing for minutes: a line
 * comes after FIRST, and whenever INTERVAL has passed without other output. CommonJS, as the reporter that it is a part
 * of (ran-reporter.cjs).
 */
const { basename, resolve } = require('node:path')

/** Milliseconds. */
const FIRST = 1500
const INTERVAL = 10_000
/** Events that the reporter for people prints. */
const PRINTED = ['test:pass', 'test:fail', 'test:stdout', 'test:stderr']

/** `check/findings`; of several files in one process (test.mjs) the name of their folder. */
const nameOf = file => /\/dist\/test\/(.*?)(?:\.test)?\.js$/.exec(file)?.[1] ?? basename(file, '.mjs')

exports.watchTests = () => {
  const files = new Set()
  const running = new Map()
  let ended = 0
  let silentSince = Date.now() - INTERVAL + FIRST
  const timer = setInterval(() => {
    const now = Date.now()
    if (running.size === 0 || now - silentSince < INTERVAL) return
    silentSince = now
    const slowest = [...running].map(([file, start]) => `${nameOf(file)} ${Math.round((now - start) / 1000)} s`)
    process.stderr.write(`userdma: tests: ${ended} of ${files.size} files have ended; running: ${slowest.join(', ')}\n`)
  }, 250)
  return {
    note({ type, data }) {
      if (PRINTED.includes(type)) silentSince = Date.now()
      // A file is a test with its path as the name.
      if (data.file === undefined || data.name === undefined || resolve(data.name) !== data.file) return
      if (type === 'test:enqueue') files.add(data.file)
      if (type === 'test:dequeue') running.set(data.file, Date.now())
      if (type === 'test:complete' && running.delete(data.file)) ended++
    },
    end: () => clearInterval(timer),
  }
}
