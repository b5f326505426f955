/*
 * Programs of test/programs that a test controls by steps (test/programs/connections/ucma.c and umad.c). A step is a
 * line of input. The program answers with a line: a result, and bytes in hexadecimal.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type Running, type Scope, start, type TestDaemon } from './programs.ts'

export interface StepResult {
  /** Minus an errno if the step failed. */
  readonly result: number
  readonly view: DataView
}

export class StepProgram {
  readonly running: Running
  readonly #lines: AsyncIterator<string>

  /** `user`: UID and GID of the program; undefined: those of this process. */
  constructor(t: Scope, program: string, daemon: TestDaemon, user?: number) {
    const credentials = user === undefined ? {} : { uid: user, gid: user }
    this.running = start(t, program, [], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'], ...credentials })
    const { stdout } = this.running.child
    assert.ok(stdout)
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
  }

  async step(line: string): Promise<StepResult> {
    this.running.child.stdin?.write(`${line}\n`)
    const { value, done } = await this.#lines.next()
    assert.ok(!done, `the program ended before it answered ${line}`)
    const [result = '', hex = ''] = (value as string).split(' ')
    const bytes = new Uint8Array(Buffer.from(hex, 'hex'))
    return { result: Number(result), view: new DataView(bytes.buffer) }
  }

  async close(): Promise<void> {
    this.running.child.stdin?.end()
    await once(this.running.child, 'close')
  }
}
