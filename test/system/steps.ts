/*
 * Programs of test/programs that a test controls step by step: the test writes a line for each step to their standard
 * input, and they answer with a line: a result and bytes in hexadecimal (test/programs/connections/ucma.c and umad.c).
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type Running, type Scope, start, type TestDaemon } from './programs.ts'

export interface StepResult {
  /** The result of the step, or minus an errno. */
  readonly result: number
  /** The bytes of the answer. */
  readonly view: DataView
}

export class StepProgram {
  readonly running: Running
  readonly #lines: AsyncIterator<string>

  /** `user`: number of the user and group as which the program runs; undefined: as this process. */
  constructor(t: Scope, program: string, daemon: TestDaemon, user?: number) {
    const credentials = user === undefined ? {} : { uid: user, gid: user }
    this.running = start(t, program, [], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'], ...credentials })
    const { stdout } = this.running.child
    assert.ok(stdout)
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
  }

  /** Runs one step and waits for its answer. */
  async step(line: string): Promise<StepResult> {
    this.running.child.stdin?.write(`${line}\n`)
    const { value, done } = await this.#lines.next()
    assert.ok(!done, `the program ended before it answered ${line}`)
    const [result = '', hex = ''] = (value as string).split(' ')
    const bytes = new Uint8Array(Buffer.from(hex, 'hex'))
    return { result: Number(result), view: new DataView(bytes.buffer) }
  }

  /** Ends the program by closing its input, and waits for its end. */
  async close(): Promise<void> {
    this.running.child.stdin?.end()
    await once(this.running.child, 'close')
  }
}
