/*
 * A reporter of Node's test runner: prints the file of each test that ran, without skipped and to-do tests. CommonJS:
 * the runner requires a default export, which modules of this project must not have.
 */
// With a third reporter, Node would warn of too many listeners.
const { watchTests } = require('./test-progress.cjs')
if (process.env.USERDMA_TEST_LIMITS) require('./test-watchdog.cjs')

module.exports = async function* ran(events) {
  const progress = watchTests()
  for await (const event of events) {
    progress.note(event)
    const { type, data } = event
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const { file, name, skip, todo, details } = data
    if (skip !== undefined || todo !== undefined || details?.type === 'suite') continue
    // The runner may also report a file as a test, with its path as the name.
    if (file !== undefined && !name.endsWith('.test.js')) yield `${file}\n`
  }
  progress.end()
}
