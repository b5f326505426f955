/*
 * How `userdma run` starts a program: refusals with their exit status, signals, environment.
 */
import assert from 'node:assert/strict'
import childProcess from 'node:child_process'
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { after, describe, it, test } from 'node:test'
import { attempt } from '../../src/cli/attempt.ts'
import { messageOf } from '../../src/cli/fail.ts'
import { privateFolder, removeFolder, shimLibrary } from '../../src/cli/paths.ts'
import {
  ProgramError,
  programEnvironment,
  requireProgram,
  runProgram,
  withoutShim,
} from '../../src/cli/program/program.ts'
import { childrenOf, statFieldsOf } from '../../src/host/process-status.ts'
import { lacking } from '../system/programs.ts'

const folder = privateFolder()
const searchPath = process.env.PATH
after(() => removeFolder(folder))

const file = (name: string, mode: number): string => {
  const full = join(folder, name)
  writeFileSync(full, '#!/bin/sh\n')
  chmodSync(full, mode)
  return full
}
const plain = file('plain', 0o644)
const good = file('good', 0o755)

describe('a program that cannot be run', () => {
  mkdirSync(join(folder, 'sub'))
  symlinkSync('loop', join(folder, 'loop'))
  const cases: readonly (readonly [program: string, status: number, message: RegExp])[] = [
    ['no-such-program', 127, /^no-such-program: there is no such program in PATH$/],
    [join(folder, 'nothing'), 127, /there is no such program$/],
    [plain, 126, /^\/\S*plain is not executable for you$/],
    [join(folder, 'sub'), 126, /^\/\S*sub is a folder, not a program$/],
    [join(folder, 'loop'), 127, /^\/\S*loop: there is no such program$/],
    ['', 127, /^"": there is no such program in PATH$/],
  ]
  for (const [program, status, message] of cases)
    it(`has status ${status}: "${program.replace(folder, '')}"`, () => {
      assert.throws(
        () => requireProgram(program),
        error => error instanceof ProgramError && error.status === status && message.test(error.message),
      )
    })
})

it('a missing program of a Debian package is named with the package', t => {
  const { PATH } = process.env
  t.after(() => {
    process.env.PATH = PATH
  })
  process.env.PATH = folder
  const message = 'ibv_srq_pingpong: there is no such program in PATH (Debian: apt-get install ibverbs-utils)'
  assert.throws(() => requireProgram('ibv_srq_pingpong'), { message })
})

describe('the search for a program', () => {
  it('skips files that are not executable', () => {
    requireProgram(good)
    requireProgram('sh')
    mkdirSync(join(folder, 'first'))
    writeFileSync(join(folder, 'first', 'good'), '')
    process.env.PATH = join(folder, 'first')
    assert.throws(() => requireProgram('good'), /^ProgramError: good: \/\S*first\/good is not executable for you$/)
    process.env.PATH = `${join(folder, 'first')}:${folder}`
    requireProgram('good')
    process.env.PATH = searchPath
  })
  it('includes the current folder if PATH has an empty entry', () => {
    const before = process.cwd()
    process.chdir(folder)
    process.env.PATH = `/nonexistent:`
    assert.equal(requireProgram('good'), 'good')
    process.env.PATH = searchPath
    process.chdir(before)
  })
})

describe('a program that runs', () => {
  it('gets signals that arrive while the program starts', async t => {
    const { spawn } = childProcess
    t.mock.method(childProcess, 'spawn', (...args: Parameters<typeof spawn>) => {
      assert.equal(process.listenerCount('SIGTERM'), 1, 'a signal would end us, but not the program')
      process.kill(process.pid, 'SIGTERM')
      return spawn(...args)
    })
    syncBuiltinESMExports()
    t.after(() => {
      t.mock.restoreAll()
      syncBuiltinESMExports()
    })
    const { status, signal } = await runProgram('sleep', ['60'], process.env)
    assert.deepEqual([status, signal], [143, 'SIGTERM'])
    assert.equal(process.listenerCount('SIGTERM'), 0)
  })

  it('continues if a signal cannot be sent to it, because it runs as another user', async t => {
    const { spawn } = childProcess
    t.mock.method(childProcess, 'spawn', (...args: Parameters<typeof spawn>) => {
      const child = spawn(...args)
      // As ChildProcess.kill does after EPERM.
      child.kill = () => child.emit('error', Object.assign(new Error('kill EPERM'), { code: 'EPERM' }))
      return child
    })
    syncBuiltinESMExports()
    t.after(() => {
      t.mock.restoreAll()
      syncBuiltinESMExports()
    })
    const program = await runProgram('sh', ['-c', 'kill -TERM $PPID; kill -HUP $PPID; exit 7'], process.env)
    assert.deepEqual([program.status, program.signal], [7, null])
  })

  it('leaves no pipe to a child that outlives it', async t => {
    const pipes = (): number => process.getActiveResourcesInfo().filter(name => name === 'PipeWrap').length
    const before = pipes()
    const flag = join(folder, 'has-own-session')
    const child = `setsid sh -c 'echo $$; : >${flag}; exec sleep 60'`
    const script = `${child} & until [ -e ${flag} ]; do sleep 0.01; done`
    const { failure, output } = await attempt('sh', ['-c', script], process.env, {
      seconds: 60,
      stop: new AbortController().signal,
    })
    t.after(() => process.kill(Number(output)))
    assert.equal(failure, undefined)
    // Handles close within two turns of the event loop.
    for (let turns = 0; turns < 2; turns++) await new Promise(resolve => setImmediate(resolve))
    assert.equal(pipes(), before)
  })

  it('is refused with a message if the system does not start it', async () => {
    const tooLong = 'x'.repeat(1 << 20)
    await assert.rejects(
      runProgram('true', [tooLong], process.env),
      error =>
        error instanceof ProgramError && error.status === 126 && /^true: it cannot be executed/.test(error.message),
    )
    assert.equal(process.listenerCount('SIGTERM'), 0)
    const orphan = join(folder, 'orphan')
    writeFileSync(orphan, '#!/no/such/interpreter\n', { mode: 0o755 })
    await assert.rejects(runProgram(orphan, [], process.env), {
      status: 127,
      message: `${orphan}: its interpreter does not exist`,
    })
    const { signal } = new AbortController()
    await assert.rejects(attempt('true', [tooLong], process.env, { seconds: 60, stop: signal }), { status: 126 })
  })
})

describe('a time limit that is seen late, because this process was busy', () => {
  /** Blocks the event loop until the newest child has ended; its exit is not yet known here. */
  const untilEnded = (): void => {
    const child = childrenOf(process.pid).at(-1) ?? 0
    while ((statFieldsOf(child)?.[0] ?? 'Z') !== 'Z');
  }

  it('does not make a program late that had ended', async () => {
    const told: boolean[] = []
    const limit = { seconds: 0.001, reached: async (isDeadlock: boolean) => void told.push(isDeadlock) }
    const running = runProgram('sh', ['-c', 'exit 3'], process.env, { limit })
    const begin = performance.now()
    untilEnded()
    while (performance.now() < begin + 2);
    const { status, limit: passed } = await running
    assert.deepEqual([status, passed, told], [3, undefined, []])
    const { signal: stop } = new AbortController()
    const tried = attempt('true', [], process.env, { seconds: 0.001, stop })
    const again = performance.now()
    untilEnded()
    while (performance.now() < again + 2);
    assert.equal((await tried).failure, undefined)
  })

  it('nor one that ends by itself during the report, before the signal', async () => {
    const fifo = join(folder, 'fifo')
    childProcess.execFileSync('mkfifo', [fifo])
    const reached = async (): Promise<void> => {
      writeFileSync(fifo, '\n')
      untilEnded()
    }
    const limit = { seconds: 0.001, reached }
    const end = await runProgram('sh', ['-c', `read -r line <${fifo}; exit 3`], process.env, { limit })
    assert.deepEqual([end.status, end.signal, end.limit], [3, null, undefined])
  })
})

test('the message of EACCES has no advice if the owner of the folder cannot be found', () => {
  // stat fails, because the name of the folder is too long.
  const path = `/${'x'.repeat(300)}/sock`
  const error = Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES', path })
  assert.equal(messageOf(error), 'EACCES: permission denied')
})

test('the message of ENOENT has no advice if /proc is mounted', () => {
  const path = '/proc/self/no-such-file'
  const error = Object.assign(new Error('ENOENT: no such file'), { code: 'ENOENT', path })
  assert.equal(messageOf(error), 'ENOENT: no such file')
})

describe('the environment of a program', { skip: lacking() }, () => {
  it('names the library and the socket, keeps other preloaded libraries, and names none twice', () => {
    process.env.LD_PRELOAD = '/lib/other.so /elsewhere/libuserdma_shim.so:/lib/third.so'
    process.env.USERDMA_TAG = 'old'
    process.env.USERDMA_STACKS = '2'
    const env = programEnvironment('/run/sock')
    assert.equal(env.LD_PRELOAD, `${shimLibrary()}:/lib/other.so:/lib/third.so`)
    assert.equal(env.USERDMA_SOCKET, '/run/sock')
    assert.deepEqual([env.USERDMA_TAG, env.USERDMA_STACKS], [undefined, undefined])
    assert.equal(programEnvironment('/run/sock', { tag: 'new' }).USERDMA_TAG, 'new')
    assert.equal(env.PATH, process.env.PATH)
  })

  it('without the libraries is the original environment', () => {
    assert.equal(withoutShim({ LD_PRELOAD: '/a/libuserdma_shim.so:/b.so' }).LD_PRELOAD, '/b.so')
    assert.deepEqual(withoutShim({ LD_PRELOAD: '/a/libuserdma_shim.so', A: 'b' }), { A: 'b' })
    assert.deepEqual(withoutShim({ A: 'b' }), { A: 'b' })
  })
})
