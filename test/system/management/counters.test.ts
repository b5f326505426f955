/*
 * Counter files of sysfs, and `stat --watch`.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { DeviceStat, Stat } from '../../../src/uapi/tool.ts'
import { findTool, skipTest } from '../../tools.ts'
import { assertGoodPair, runPair } from '../pairs/pingpong.ts'
import { cleanEnvironment, lacking, run, start, startDaemon, temporaryFolder, userdma } from '../programs.ts'

const PORT = '/sys/class/infiniband/rxe0/ports/1'

/** The values in the output of `grep -H`, by folder and file. */
const parseCounters = (text: string): Record<string, Record<string, number>> => {
  const values: Record<string, Record<string, number>> = {}
  for (const [, folder, name, value] of text.matchAll(/(\w+)\/(\w+):(\d+)\n/g)) {
    values[folder] ??= {}
    values[folder][name] = Number(value)
  }
  return values
}

/** Starts a daemon on a small file system, and reads a counter file with the file system full, then with space. */
const fullDiskScript = (folder: string): string => `
  mount -t tmpfs -o size=1m,mode=700 none ${folder} || exit 9
  ${userdma} daemon --socket ${folder}/sock --device rxe0@127.0.0.1 > ${folder}/../log 2>&1 & daemon=$!
  until grep -q ready ${folder}/../log; do :; done
  under() { ${userdma} run --socket ${folder}/sock -- "$@"; }
  read_counter() { under cat ${PORT}/hw_counters/sent_pkts 2>&1; echo "status $?"; }
  head -c 2000000 /dev/zero > ${folder}/fill 2> /dev/null
  under sh -c 'ibv_rc_pingpong -g 1 -n 9 & until ibv_rc_pingpong -g 1 -n 9 localhost; do :; done; wait' > /dev/null 2>&1
  read_counter
  rm ${folder}/fill
  read_counter
  kill $daemon; wait $daemon`

describe('counter files', { skip: lacking('ibv_rc_pingpong') }, () => {
  it('cannot be read while a full disk prevents updates', async t => {
    if (process.getuid?.() !== 0 || findTool('unshare') === undefined)
      return void skipTest(t, 'a small file system needs root and unshare')
    const folder = join(temporaryFolder(t), 'full')
    mkdirSync(folder)
    const { stdout } = await run(t, 'unshare', ['-m', 'sh', '-c', fullDiskScript(folder)], { env: cleanEnvironment() })
    assert.match(stdout, /^cat: .*sent_pkts: No space left on device\nstatus 1\n[1-9]\d*\nstatus 0\n$/)
    const log = readFileSync(join(folder, '..', 'log'), 'utf8')
    assert.match(
      log,
      /\nuserdma daemon: the files of counters cannot be written: .*ENOSPC.*\nuserdma daemon: .* up to date again\n$/,
    )
  })
  it('show any program the values that stat shows', async t => {
    const daemon = await startDaemon(t, {})
    const read = async (script: string): Promise<string> => {
      const { status, stdout, stderr } = await run(t, 'sh', ['-c', script], { env: daemon.env })
      assert.deepEqual([status, stderr], [0, ''], script)
      return stdout
    }
    // With a lifespan of 0 ms values are current; before, they are up to 10 ms old.
    assert.equal(
      await read(`cd ${PORT}/hw_counters; cat lifespan sent_pkts; echo 0 > lifespan; cat lifespan`),
      '10\n0\n0\n',
    )
    assertGoodPair(await runPair(t, daemon, ['-g', '1', '-n', '50']))
    const all = parseCounters(await read(`grep -H . ${PORT}/hw_counters/* ${PORT}/counters/*`))
    const { devices } = await daemon.stat()
    const [{ hw_counters, counters }]: readonly DeviceStat[] = devices
    const expected: typeof all = { hw_counters: { ...hw_counters, lifespan: 0 }, counters: { ...counters } }
    assert.deepEqual(all, expected)
    const hw = all.hw_counters
    const messages = 2 * 50 // server and client send `-n` messages each, of 4096 bytes
    assert.equal(hw.rdma_sends, messages)
    assert.equal(hw.rdma_recvs, messages)
    assert.equal(hw.sent_pkts, hw.rcvd_pkts)
    assert.equal(all.counters.port_xmit_packets, hw.sent_pkts)
    assert.ok(all.counters.port_xmit_data * 4 > messages * 4096, 'in words of 4 bytes')
    // The shell stays in the folder, whose files change.
    const script = `cd ${PORT}/hw_counters; cat rdma_sends; (ibv_rc_pingpong -g 1 -n 5 & until ibv_rc_pingpong -g 1 -n 5 localhost; do :; done; wait) > /dev/null 2>&1; cat rdma_sends`
    assert.equal(await read(script), `${messages}\n${messages + 2 * 5}\n`)
  })

  it('are shown by `stat --watch` until the daemon ends', async t => {
    const daemon = await startDaemon(t, {})
    const watching = start(t, userdma, ['stat', '--watch', '0.1', '--socket', daemon.socket])
    const json = start(t, 'sh', ['-c', `"${userdma}" stat --watch 0.1 --json --socket ${daemon.socket} | head -n 2`])
    const { stdout, stderr } = await json.ended
    assert.equal(stderr, '')
    const [first] = stdout.split('\n').map(line => JSON.parse(line || '{}') as Stat)
    assert.equal(first.devices[0].hw_counters.sent_pkts, 0)
    assertGoodPair(await runPair(t, daemon, ['-g', '1', '-n', '50']))
    await watching.printed(/^\d\d:\d\d:\d\d {2}rxe0 {2}out \S+ \w+\/s, in \S+ \w+\/s, sent_pkts \S+\/s, /m)
    daemon.running.child.kill('SIGTERM')
    assert.equal((await watching.ended).status, 0)
  })
})
