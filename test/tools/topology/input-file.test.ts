/*
 * Input files of users: those that do not say their size.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'

test('a pipe without end is refused after the most bytes of a file', () => {
  const module = new URL('../../../src/tools/topology/input-file.js', import.meta.url).href
  const script = `import(process.argv[1]).then(({ readInputFile }) => readInputFile('/dev/stdin', 'scenario', 100000)).catch(error => console.log(error.message))`
  const said = execFileSync('sh', ['-c', 'yes | "$0" -e "$1" "$2"', process.execPath, script, module], {
    encoding: 'utf8',
  })
  assert.equal(said, '/dev/stdin has more than 100000 bytes, the most of a scenario\n')
})
