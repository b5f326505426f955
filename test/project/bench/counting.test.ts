/*
 * Counts of system calls from the table of strace.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSummary } from '../../../bench/harness/counting.ts'

test('the calls of a table are summed without futex, copies apart', () => {
  const table = [
    '% time     seconds  usecs/call     calls    errors syscall',
    '------ ----------- ----------- --------- --------- ----------------',
    ' 60.12    0.120000           3     40000        12 futex',
    ' 20.00    0.040000          10      4000           process_vm_readv',
    ' 10.00    0.020000          20      1000       998 recvmsg',
    '  0.00    0.000000           0         5           process_vm_writev',
    '------ ----------- ----------- --------- --------- ----------------',
    '100.00    0.180000           4     45005      1010 total',
    '',
  ].join('\n')
  const { calls, copies, names } = parseSummary(table)
  assert.deepEqual([calls, copies], [5005, 4005])
  assert.equal(names.get('recvmsg'), 1000)
})
