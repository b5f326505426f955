/*
 * web/logs/files.ts: files that somebody gives to the page, as Node.js has a browser's File and DecompressionStream
 * too.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { LogAnalysis } from '../../../src/tools/logs/analysis.ts'
import { reportOf } from '../../../src/tools/logs/report.ts'
import { readFiles } from '../../../web/logs/files.ts'
import { fixture } from '../../paths.ts'
import { temporaryFolder } from '../../system/programs.ts'

const log = readFileSync(fixture('logs', 'nccl-one-peer.log'))
const FIRST = /^On node1, mlx5_3: a request was sent several times, and node7/

const read = async (
  files: readonly (readonly [name: string, bytes: Uint8Array])[],
): Promise<{ readonly analysis: LogAnalysis; readonly unread: readonly object[] }> => {
  const analysis = new LogAnalysis()
  const given = files.map(([name, bytes]) => new File([new Uint8Array(bytes)], name))
  const unread = await readFiles(analysis, given, () => {})
  return { analysis, unread }
}

test('text, gzip, tar, and both; damage and what is packed otherwise', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'logs'))
  writeFileSync(join(folder, 'logs', 'a.log'), 'nothing of RDMA\n')
  writeFileSync(join(folder, 'logs', 'b.gz'), gzipSync(log))
  assert.equal(spawnSync('tar', ['-cf', 'logs.tar', 'logs/a.log', 'logs/b.gz'], { cwd: folder }).status, 0)
  const archive = readFileSync(join(folder, 'logs.tar'))
  for (const [name, bytes, names] of [
    ['job.log', log, ['job.log']],
    ['job.log.1', gzipSync(log), ['job.log.1']],
    ['logs.tar', archive, ['logs.tar/logs/a.log', 'logs.tar/logs/b.gz']],
    ['logs.tgz', gzipSync(archive), ['logs.tgz/logs/a.log', 'logs.tgz/logs/b.gz']],
  ] as const) {
    const { analysis, unread } = await read([[name, bytes]])
    assert.deepEqual(unread, [])
    assert.deepEqual(
      analysis.sources.map(source => [source.name, source.isCut]),
      names.map(each => [each, false]),
    )
    assert.match(reportOf(analysis).summary[0]!, FIRST)
  }
  const whole = gzipSync(Buffer.concat([log, Buffer.from(`${'a line of a program\n'.repeat(1000)}`)]))
  const { analysis: cut } = await read([['cut.gz', whole.subarray(0, -40)]])
  assert.deepEqual(
    cut.sources.map(({ isCut }) => isCut),
    [true],
  )
  const { analysis, unread } = await read([
    ['a.zst', Buffer.from('28b52ffd0000', 'hex')],
    ['b.zip', Buffer.from('504b03040000', 'hex')],
    ['c.log', log],
  ])
  assert.deepEqual(unread, [
    { name: 'a.zst', reason: 'it is packed by zstd: unpack it first (zstd -d)' },
    { name: 'b.zip', reason: 'it is packed by zip: unpack it first (unzip)' },
  ])
  assert.match(reportOf(analysis).summary[0]!, FIRST)
})
