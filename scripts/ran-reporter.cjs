/*
 * A reporter of Node's test runner, beside the one that people read: the files of which a test ran, a line for each
 * such test. What was skipped, or is only a group or a file, is not told. The runner wants a module with one nameless
 * export, which modules of this project do not have: so this one is CommonJS.
 */
module.exports = async function* ran(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const { file, name, skip, todo, details } = data
    if (skip !== undefined || todo !== undefined || details?.type === 'suite') continue
    if (file !== undefined && !name.endsWith('.test.js')) yield `${file}\n`
  }
}
