/*
 * The registered ranges of a program: the end of its userfaultfd.
 */
import assert from 'node:assert/strict'
import { fstatSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { RegisteredRanges } from '../../../src/daemon/memory/registered-ranges.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { startPeer } from '../../host/peer-control.ts'

for (const hasEnded of [false, true])
  test(`a program that ${hasEnded ? 'has ended' : 'runs'} keeps one userfaultfd, which is closed with the ranges`, async t => {
    const peer = startPeer()
    t.after(() => peer.kill())
    const { pid } = peer
    // The answer shows that the process runs.
    await peer.request('arena', { bytes: 4096 })
    const handle = openProcess(pid) as ProcessHandle
    const ranges = new RegisteredRanges(handle)
    // /dev/null stands for a userfaultfd.
    const [fd, second] = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')]
    ranges.setUserfault(fd)
    ranges.setUserfault(second)
    assert.throws(() => fstatSync(second), { code: 'EBADF' })
    fstatSync(fd)
    if (hasEnded) await peer.kill()
    ranges.close()
    assert.throws(() => fstatSync(fd), { code: 'EBADF' })
    closeProcess(handle)
  })
