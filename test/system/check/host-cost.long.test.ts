/*
 * What `--host` costs: no system call for a post, a poll and a completion.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { cleanEnvironment, lacking, ownProgram, runUserdma, temporaryFolder, userdma } from '../programs.ts'

const program = ownProgram('wrapped')
/** Posts and completions of five rounds. */
const WRAPPED = 5 * 2 * 1000

it('adds no system call to a post, a poll and a completion', { skip: lacking('strace', program) }, async t => {
  const folder = temporaryFolder(t)
  const commands = ['', `${userdma} run --host --`, `${userdma} check --host -o /dev/null --`]
  const script = commands.map((command, i) => `${command} strace -f -c -o ${folder}/${i} ${program} 5`).join(' && ')
  const { status, stderr } = await runUserdma(t, ['run', '--private', '--', 'sh', '-c', script], {
    env: cleanEnvironment(),
  })
  assert.equal(status, 0, stderr)
  const [plain = 0, ...observed] = commands.map((_, i) => {
    const text = readFileSync(join(folder, String(i)), 'utf8')
    return Number(/(\d+)(?:\s+\d+)? total$/m.exec(text)?.[1])
  })
  assert.ok(plain > 0)
  // The rounds' fifteen calls on devices add some hundreds.
  for (const count of observed) assert.ok(count - plain < WRAPPED / 10, `${count} calls, without --host ${plain}`)
})
