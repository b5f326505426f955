/*
 * The symbols that a command adds to a recording: which source files it reads, and how much it sends.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { addSymbols } from '../../src/cli/recorded-symbols.ts'
import type { Stack } from '../../src/spec/check/finding.ts'
import type { Frame } from '../../src/spec/check/frames.ts'
import { symbolFrames } from '../../src/tools/record/symbol-frames.ts'
import type { FrameSymbol } from '../../src/uapi/tool.ts'
import { temporaryFolder } from '../system/programs.ts'

/** What is sent for frames with these symbols. `room`: batches that the recording takes. */
const sent = async (
  frames: Readonly<Record<string, readonly Frame[]>>,
  room = Number.POSITIVE_INFINITY,
): Promise<FrameSymbol[][]> => {
  const batches: FrameSymbol[][] = []
  const symbols = { framesOf: ([frame = '']: Stack) => frames[frame] ?? [] }
  await addSymbols(
    {
      recordedFrames: async () => Object.keys(frames),
      async addSymbols(symbols) {
        batches.push([...symbols])
        return batches.length < room
      },
    },
    { ...symbols, render: async make => make(symbols) },
  )
  return batches
}

describe('symbols of a recording', () => {
  it('have three lines before and after each position, of files that are source', async t => {
    const folder = temporaryFolder(t)
    const file = (name: string) => join(folder, name)
    writeFileSync(file('a.c'), ['1', '2', '3', '\t4  ', 'x'.repeat(500), '6', '7', '8'].join('\n'))
    writeFileSync(file('binary.c'), 'a\0b\n')
    writeFileSync(file('large.c'), Buffer.alloc(2 ** 23 + 1, '\n'))
    writeFileSync(file('id_ed25519'), 'a key\n')
    writeFileSync(file('key.pem'), 'a key\n')
    mkdirSync(file('folder'))
    execFileSync('mkfifo', [file('fifo.c')])
    const others = ['binary.c', 'large.c', 'folder', 'fifo.c', 'missing.c', 'id_ed25519', 'key.pem'].map(file)
    const of = (path: string, line: number): Frame => ({ function: 'f', file: path, line, object: '/app' })
    const [batch = []] = await sent({
      '/app+0x1 ': [of(file('a.c'), 4), of(file('a.c'), 1)],
      '/app+0x2 ': [of(file('a.c'), 9), ...others.map(path => of(path, 1)), of('./test/paths.ts', 1)],
      '/app+0x3 ': [{ function: '' }],
    })
    assert.deepEqual(
      batch.map(({ frame }) => frame),
      ['/app+0x1 ', '/app+0x2 '],
    )
    const [first, second] = batch.map(({ frames }) => frames.map(({ source }) => source))
    assert.deepEqual(first, [
      { first: 1, lines: ['1', '2', '3', '\t4', 'x'.repeat(200), '6', '7'] },
      { first: 1, lines: ['1', '2', '3', '\t4'] },
    ])
    assert.deepEqual(
      second,
      second?.map(() => undefined),
    )
  })

  it('are sent in messages of bounded length, until the recording has no room', async () => {
    const frames = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [`/app+0x${i.toString(16)} `, [{ function: 'f'.repeat(100) }]]),
    )
    const batches = await sent(frames)
    assert.equal(batches.flat().length, 1000)
    for (const batch of batches) assert.ok(JSON.stringify(batch).length < 2 ** 15)
    assert.equal((await sent(frames, 2)).length, 2)
  })

  it('are sent whatever their names and source are: one that is too long does not take the others with it', async t => {
    const file = join(temporaryFolder(t), 'a.c')
    writeFileSync(file, Array(20).fill('\u6f22'.repeat(200)).join('\n'))
    const long = { function: 'std::f<'.repeat(3000), file, line: 9, object: `/${'\u6f22'.repeat(5000)}` }
    const frames = {
      '/app+0x1 ': Array<Frame>(20).fill({ function: 'f', file, line: 9, object: '/app' }),
      '/app+0x2 ': Array<Frame>(20).fill(long),
      [`/${'\u0001'.repeat(4000)}+0x3 `]: [{ function: 'g' }],
      '/app+0x4 ': [{ function: '\u6f22'.repeat(5000) }],
      '/app+0x5 ': [{ function: 'last' }],
    }
    const batches = await sent(frames)
    const symbols = batches.flat()
    assert.deepEqual(
      symbols.map(({ frame }) => frame),
      Object.keys(frames),
    )
    for (const { frame, frames } of symbols) assert.ok(symbolFrames(frames) !== undefined, frame.slice(0, 20))
    assert.ok(symbols[0]?.frames[0]?.function === 'f' && symbols[1]?.frames[0]?.function.startsWith('std::f<'))
    for (const batch of batches) assert.ok(Buffer.byteLength(JSON.stringify(batch)) < 2 ** 15)
  })
})
