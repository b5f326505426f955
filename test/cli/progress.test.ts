/*
 * The line of progress: when it appears, what it says, and that nothing remains of it.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createProgress, type Terminal } from '../../src/cli/progress.ts'
import { lacking, run, temporaryFolder, userdma } from '../system/programs.ts'

/** A terminal with its current line, and a clock. */
const setUp = (columns = 80) => {
  let time = 0
  let line = ''
  const write = (text: string): boolean => {
    assert.ok(text.startsWith('\r') && text.endsWith('\x1b[K'), text)
    line = text.slice(1, -3)
    assert.ok(line.length < columns, line)
    return true
  }
  const terminal: Terminal = { isTTY: true, columns, write }
  const options = { terminal, env: {}, now: () => time }
  return {
    terminal,
    options,
    line: () => line,
    pass(milliseconds: number) {
      time += milliseconds
    },
  }
}

describe('a line of progress', () => {
  it('appears after 2 s, says how much is left, and makes way for output', () => {
    const { options, line, pass } = setUp()
    let done = 0
    const progress = createProgress('userdma check', options)
    progress.refresh()
    progress.show(
      () => `seed ${done} of 200`,
      () => done / 200,
    )
    pass(1999)
    progress.refresh()
    assert.equal(line(), '')
    pass(1)
    progress.refresh()
    assert.equal(line(), 'userdma check: seed 0 of 200')
    done = 50
    pass(58_000)
    progress.refresh()
    assert.equal(line(), 'userdma check: seed 50 of 200, about 3 min left')
    progress.clear()
    assert.equal(line(), '')
    progress.refresh()
    progress.show(() => 'the next part')
    assert.equal(line(), 'userdma check: the next part')
    progress.end()
    assert.equal(line(), '')
    pass(2000)
    progress.refresh()
    assert.equal(line(), '')
  })
  it('never wraps', () => {
    const { options, line, pass } = setUp(10)
    const progress = createProgress('userdma', options)
    progress.show(() => 'a file')
    pass(2000)
    progress.refresh()
    assert.equal(line(), 'userdma: ')
    progress.end()
  })
  it('is only for a terminal of a person', () => {
    const { options, terminal, line } = setUp()
    for (const other of [
      { env: { CI: '1' } },
      { env: { NO_COLOR: '1' } },
      { env: { TERM: 'dumb' } },
      { terminal: { ...terminal, isTTY: false } },
    ]) {
      const progress = createProgress('userdma', { ...options, delay: 0, ...other })
      progress.show(() => 'a file')
      assert.equal(line(), '')
      progress.end()
    }
  })
})

/**
 * Runs a command on a terminal. When the line of progress has appeared, creates the file argv[1] and writes a line
 * to the FIFO argv[2]. Prints what the terminal got.
 */
const onTerminal = `
import os, pty, sys
flag, fifo, *command = sys.argv[1:]
# Open at both ends, so that no order of the two programs blocks one of them.
pipe = os.open(fifo, os.O_RDWR)
pid, fd = pty.fork()
if pid == 0:
    os.execv(command[0], command)
out = b''
while True:
    try:
        out += os.read(fd, 65536)
    except OSError:
        break
    if b'run 1 of 3 without torment' in out and not os.path.exists(flag):
        open(flag, 'w').close()
        os.write(pipe, b'\\n')
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), repr(out.decode()))
`

describe('the terminal during check --torment-search', { skip: lacking('python3') }, () => {
  it('shows the run, then the seed, and at the end only the result', async t => {
    const folder = temporaryFolder(t)
    const [flag, fifo] = [join(folder, 'flag'), join(folder, 'fifo')]
    spawnSync('mkfifo', [fifo])
    // Waits until the line has appeared.
    const program = ['sh', '-c', `[ -e ${flag} ] || read line < ${fifo}`]
    const command = [userdma, 'check', '--torment-search', '1', '--', ...program]
    const { CI: _, NO_COLOR: __, ...env } = process.env
    const { stdout } = await run(t, 'python3', ['-c', onTerminal, flag, fifo, ...command], {
      env: { ...env, TERM: 'xterm' },
    })
    const result = 'userdma check: no failure with 1 seeds, 1 to 1'
    assert.ok(stdout.startsWith(`0 '\\ruserdma check: run 1 of 3 without torment\\x1b[K`), stdout)
    assert.match(stdout, /\\ruserdma check: seed 1 of 1, 0 failures\\x1b\[K/)
    assert.ok(stdout.endsWith(`\\r\\x1b[K${result}\\r\\n'\n`), stdout)
  })
})
