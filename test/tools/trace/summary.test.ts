/*
 * Call counts (`userdma trace -c`), and filters (`--class`, `--errors`).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { classesOf, isSelected, parseClasses } from '../../../src/tools/trace/select.ts'
import { createSummary, summaryJson, summaryText } from '../../../src/tools/trace/summary.ts'
import { recordsOf } from './records.ts'

const records = recordsOf('ibv_rc_pingpong.client.abilog')
/** The first decoded call of a class, with another duration. */
const callOf = (className: string, duration: number): TraceRecord => {
  const found = records.find(record => record.call !== undefined && classesOf(record)[0] === className)
  assert.ok(found)
  return { ...found, duration }
}
const refused: TraceRecord = { ...records[0], duration: 5, ret: -Errno.ENOSPC, attempt: 'CREATE_SRQ' }
delete (refused as { call?: unknown }).call

describe('a summary', () => {
  it('lists methods in the order of their total time, then the total', () => {
    const summary = createSummary()
    for (const record of [callOf('pd', 10), callOf('mr', 75), refused, callOf('pd', 10)]) summary.add(record)
    assert.deepEqual(summaryText(summary).split('\n'), [
      '% time     seconds  usecs/call     calls    errors method',
      '------ ----------- ----------- --------- --------- ------------------------',
      ' 75.00    0.000075          75         1           mr.create',
      ' 20.00    0.000020          10         2           pd.create',
      '  5.00    0.000005           5         1         1 ioctl(CREATE_SRQ)',
      '------ ----------- ----------- --------- --------- ------------------------',
      '100.00    0.000100          25         4         1 total',
    ])
    assert.deepEqual(summaryJson(summary)[0], {
      method: 'mr.create',
      calls: 1,
      errors: 0,
      seconds: 0.000075,
      percent: 75,
      usecsPerCall: 75,
    })
  })

  it('has an empty table without selected calls, and the number of lost records', () => {
    const summary = createSummary()
    assert.match(summaryText(summary), / {2}0\.00 {4}0\.000000 {11}0 {9}0 {11}total$/)
    summary.addLost(4)
    assert.equal(summary.total().calls, 0)
    assert.match(summaryText(summary), /\n4 records were lost: the reader was too slow$/)
    assert.equal(summaryJson(summary).at(-1)?.lost, 4)
  })

  it('counts every call of a program once', () => {
    const summary = createSummary()
    for (const record of records) summary.add(record)
    const rows = summary.rows()
    assert.equal(
      rows.reduce((sum, { calls }) => sum + calls, 0),
      records.length,
    )
    assert.equal(rows.find(({ name }) => name === 'rc_qp.modify')?.calls, 3)
    assert.equal(summary.total().errors, 0, 'the probe QUERY_DEVICE of libibverbs has not failed')
  })
})

describe('a selection', () => {
  it('by class includes a refused call for each class that it may concern', () => {
    const mr = callOf('mr', 1)
    assert.ok(isSelected(mr, {}))
    assert.ok(isSelected(mr, { classes: new Set(['pd', 'mr']) }))
    assert.ok(!isSelected(mr, { classes: new Set(['pd']) }))
    assert.deepEqual(classesOf(refused), ['srq'])
    assert.deepEqual(classesOf({ ...refused, attempt: 'SRQ_DESTROY' }), ['srq', 'xrc_srq', 'tm_srq'])
    assert.deepEqual(classesOf({ ...refused, attempt: 'POLL_CQ' }), [])
    // Linux has this name twice; only the ioctl has a method here.
    assert.deepEqual(classesOf({ ...refused, attempt: 'QUERY_MR' }), ['mr'])
    assert.deepEqual(classesOf({ ...refused, attempt: 'ucma JOIN_MCAST' }), ['cm_multicast'])
    assert.deepEqual(classesOf({ ...refused, attempt: 'umad write' }), ['mad_agent'])
    assert.deepEqual(classesOf({ ...refused, attempt: 'umad read' }), ['mad_channel'])
  })

  it('of errors has the failed calls, except the probe of libibverbs in each context', () => {
    const probes = records.filter(({ ret }) => ret < 0)
    assert.deepEqual(
      probes.map(({ attempt }) => attempt),
      ['QUERY_DEVICE'],
    )
    const errors = [...records, refused, { ...probes[0], ret: -Errno.EINVAL }].filter(record =>
      isSelected(record, { onlyFailed: true }),
    )
    assert.deepEqual(errors, [refused, { ...probes[0], ret: -Errno.EINVAL }])
    assert.ok(isSelected(probes[0], {}))
  })

  it('of an unknown class is refused with a list of the known ones', () => {
    assert.deepEqual([...parseClasses(['rc_qp,mr', 'cq'])], ['rc_qp', 'mr', 'cq'])
    assert.throws(
      () => parseClasses(['rc_qp,qp']),
      /^Error: --class "qp" is not one of interface, device, port, .*rc_qp/,
    )
  })
})
