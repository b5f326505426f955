/*
 * Datagrams of subnet management and administration are parsed and emitted, as InfiniBand's tools do.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { MadClass } from '../../../src/spec/wire/management.ts'
import { PERMISSIVE_LID, saRecords, smAttributes } from '../../../src/spec/wire/subnet.ts'
import type { RecordCodec } from '../../../src/transport/wire/mad/records.ts'
import {
  saCodec,
  saCodecs,
  saRecordNames,
  smAttributeNames,
  smCodecs,
  smpCodec,
} from '../../../src/transport/wire/mad/subnet.ts'
import { printedNumber, toolRun, toolRuns } from './subnet-tools.ts'

type AnyCodec = RecordCodec<Readonly<Record<string, number>>>
const again = (codec: unknown, bytes: Uint8Array): Uint8Array =>
  (codec as AnyCodec).emit((codec as AnyCodec).parse(bytes))

describe('datagrams of InfiniBand’s tools are parsed and emitted without a difference', () => {
  for (const { command, sent, received } of toolRuns)
    test(command, () => {
      for (const mad of [...sent, ...received]) {
        const mgmtClass = mad[1]
        if (mgmtClass === MadClass.SUBNET_LID_ROUTED || mgmtClass === MadClass.SUBNET_DIRECTED_ROUTE) {
          const parsed = smpCodec.parse(mad)
          assert.deepEqual(smpCodec.emit(parsed), mad)
          const name = smAttributeNames.get(parsed.attribute)
          if (name === undefined) continue
          const { bytes } = smCodecs[name]
          assert.deepEqual(again(smCodecs[name], parsed.data), parsed.data.subarray(0, bytes), name)
        } else if (mgmtClass === MadClass.SUBNET_ADMINISTRATION) {
          const parsed = saCodec.parse(mad)
          assert.deepEqual(saCodec.emit(parsed), mad)
          const name = saRecordNames.get(parsed.attribute)
          if (name === undefined) continue
          const { bytes } = saCodecs[name]
          // In this query saquery leaves what it does not ask for, reserved bytes too, as it found its memory.
          const data = name === 'MulticastForwardingTableRecord' ? again(saCodecs[name], parsed.data) : parsed.data
          assert.deepEqual(again(saCodecs[name], data), data.subarray(0, bytes), name)
        }
      }
    })
})

const answerTo = (command: string) => smpCodec.parse(toolRun(command).received.at(-1)!)

describe('fields are what the tools print', () => {
  test('directed route', () => {
    const { hopCount, initialPath, returnPath, drSlid, drDlid, isReturning } = answerTo('smpquery nodeinfo -D 0,1')
    assert.deepEqual(
      [hopCount, initialPath[1], drSlid, drDlid, isReturning],
      [1, 1, PERMISSIVE_LID, PERMISSIVE_LID, true],
    )
    assert.equal(returnPath.length, 64)
  })

  test('NodeInfo', () => {
    const run = toolRun('smpquery nodeinfo -D 0,1')
    const info = smCodecs.NodeInfo.parse(answerTo(run.command).data)
    assert.equal(info.nodeType, 2)
    for (const [label, value] of [
      ['NumPorts', info.numPorts],
      ['SystemGuid', Number(info.systemImageGuid)],
      ['Guid', Number(info.nodeGuid)],
      ['PortGuid', Number(info.portGuid)],
      ['PartCap', info.partitionCap],
      ['DevId', info.deviceId],
      ['Revision', info.revision],
      ['LocalPort', info.localPort],
      ['VendorId', info.vendorId],
    ] as const)
      assert.equal(value, printedNumber(run, label), label)
  })

  test('PortInfo', () => {
    const run = toolRun('saquery PIR')
    const record = saCodecs.PortInfoRecord.parse(saCodec.parse(run.received.at(-1)!).data)
    for (const [label, value] of [
      ['EndPortLid', record.endPortLid],
      ['PortNum', record.portNum],
      ['GidPrefix', Number(record.gidPrefix)],
      ['Lid', record.lid],
      ['SMLid', record.smLid],
      ['CapMask', record.capabilityMask],
      ['MkeyLeasePeriod', record.mKeyLeasePeriod],
      ['LocalPort', record.localPort],
      ['ProtectBits', record.mKeyProtectBits],
      ['LMC', record.lmc],
      ['SMSL', record.smSl],
      ['VLHighLimit', record.vlHighLimit],
      ['VLArbHighCap', record.vlArbitrationHighCap],
      ['VLArbLowCap', record.vlArbitrationLowCap],
      ['VLStallCount', record.vlStallCount],
      ['HoqLife', record.hoqLife],
      ['GuidCap', record.guidCap],
      ['SubnetTimeout', record.subnetTimeout],
      ['RespTimeVal', record.responseTime],
      ['OverrunErr', record.overrunErrors],
    ] as const)
      assert.equal(value, printedNumber(run, label), label)
    const { linkWidthActive, linkWidthEnabled, portState, physicalState, neighborMtu, mtuCap, vlCap } = record
    // 4X, Active, LinkUp, 2048, VL0-7, polling
    assert.deepEqual([linkWidthActive, linkWidthEnabled, portState, physicalState], [2, 2, 4, 5])
    assert.deepEqual([neighborMtu, mtuCap, vlCap, record.linkDownDefaultState], [4, 4, 4, 2])
    assert.deepEqual([record.linkSpeedSupported, record.linkSpeedActive, record.linkSpeedEnabled], [7, 1, 1])
  })

  test('SwitchInfo', () => {
    const run = toolRun('smpquery switchinfo -D 0,1')
    const info = smCodecs.SwitchInfo.parse(answerTo(run.command).data)
    for (const [label, value] of [
      ['LinearFdbCap', info.linearFdbCap],
      ['McastFdbCap', info.multicastFdbCap],
      ['LinearFdbTop', info.linearFdbTop],
      ['LifeTime', info.lifeTime],
      ['StateChange', Number(info.portStateChange)],
      ['PartEnforceCap', info.partitionEnforcementCap],
      ['FilterRawInbound', Number(info.filterRawInboundCap)],
      ['EnhancedPort0', Number(info.enhancedPort0)],
      ['MulticastFDBTop', info.multicastFdbTop],
    ] as const)
      assert.equal(value, printedNumber(run, label), label)
  })

  test('P_KeyTable, SLtoVLMappingTable and VLArbitrationTable', () => {
    const tableOf = (command: string) => smpCodec.parse(toolRun(command).received.at(-1)!).data
    const tables = toolRun('smpquery pkeys 1 1').received.map(mad => smpCodec.parse(mad))
    const { data } = tables.find(({ attribute }) => attribute === smAttributes.P_KeyTable.id)!
    const { pkeys } = smCodecs.P_KeyTable.parse(data)
    assert.deepEqual(pkeys.slice(0, 2), [0xffff, 0])
    const { lanes } = smCodecs.SLtoVLMappingTable.parse(tableOf('smpquery sl2vl -D 0,1 1'))
    assert.deepEqual(lanes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 7])
    const { entries } = smCodecs.VLArbitrationTable.parse(tableOf('smpquery vlarb -D 0,1 1'))
    assert.deepEqual(entries.slice(0, 3), [0x0004, 0x0100, 0x0200])
  })

  test('SMInfo', () => {
    const { guid, activityCount, priority, state } = smCodecs.SMInfo.parse(answerTo('sminfo').data)
    assert.deepEqual([guid, activityCount, priority, state], [0x100001n, 82, 0, 3])
  })

  test('PathRecord', () => {
    const run = toolRun('saquery -p --src-to-dst 1:2')
    const query = saCodec.parse(run.sent.at(-1)!)
    assert.deepEqual(saCodecs.PathRecord.names(query.componentMask), ['dlid', 'slid', 'numbPath'])
    const path = saCodecs.PathRecord.parse(saCodec.parse(run.received.at(-1)!).data)
    assert.deepEqual([path.dlid, path.slid, path.pkey, path.reversible], [2, 1, 0xffff, true])
    assert.deepEqual([path.mtuSelector, path.mtu, path.rateSelector, path.rate], [2, 3, 2, 3])
    assert.deepEqual([path.packetLifeTimeSelector, path.packetLifeTime], [2, 0x12])
  })

  test('MCMemberRecord', () => {
    const group = saCodecs.MCMemberRecord.parse(saCodec.parse(toolRun('saquery -g').received.at(-1)!).data)
    assert.equal(Buffer.from(group.mgid).toString('hex'), 'ff12401bffff000000000000ffffffff')
    assert.deepEqual([group.mlid, group.mtuSelector, group.mtu, group.pkey, group.rate], [0xc000, 2, 4, 0xffff, 3])
  })

  test('ClassPortInfo', () => {
    const run = toolRun('saquery -c')
    const info = saCodecs.ClassPortInfo.parse(saCodec.parse(run.received.at(-1)!).data)
    for (const [label, value] of [
      ['Capability mask.', info.capabilityMask],
      ['Capability mask 2', info.capabilityMask2],
      ['Response time value', info.responseTime],
      ['Redirect QP', info.redirectQpn],
      ['Redirect QKey', info.redirectQKey],
      ['Trap QKey', info.trapQKey],
    ] as const)
      assert.equal(value, printedNumber(run, label), label)
  })
})

test('sizes are the specification’s', () => {
  assert.deepEqual([smpCodec.bytes, saCodec.bytes], [256, 256])
  for (const name of Object.keys(smAttributes) as (keyof typeof smAttributes)[])
    assert.ok(smCodecs[name].bytes <= 64, name)
  const sizes = (Object.keys(saRecords) as (keyof typeof saRecords)[]).map(name => [name, saCodecs[name].bytes])
  assert.deepEqual(Object.fromEntries(sizes), {
    ClassPortInfo: 72,
    Notice: 80,
    InformInfo: 36,
    NodeRecord: 108,
    PortInfoRecord: 68,
    SMInfoRecord: 25,
    LinkRecord: 8,
    ServiceRecord: 176,
    PathRecord: 64,
    MCMemberRecord: 52,
    InformInfoRecord: 60,
    SwitchInfoRecord: 24,
    LinearForwardingTableRecord: 72,
    MulticastForwardingTableRecord: 72,
    P_KeyTableRecord: 72,
    GUIDInfoRecord: 72,
    SLtoVLMappingTableRecord: 16,
    VLArbitrationTableRecord: 72,
  })
})

test('what is emitted is parsed, for any bytes', () => {
  const anyOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
  for (const codec of [
    smpCodec,
    saCodec,
    ...Object.values(smCodecs),
    ...Object.values(saCodecs),
  ] as unknown as AnyCodec[])
    fc.assert(
      fc.property(anyOf(codec.bytes), bytes => {
        const record = codec.parse(bytes)
        assert.deepEqual(codec.parse(codec.emit(record)), record)
      }),
      { numRuns: 20 },
    )
})

test('a component mask names fields, and compares them', () => {
  const codec = saCodecs.PathRecord
  assert.equal(
    codec.mask('dgid', 'sgid', 'numbPath', 'packetLifeTime'),
    (1n << 2n) | (1n << 3n) | (1n << 12n) | (1n << 21n),
  )
  assert.equal(saCodecs.MCMemberRecord.mask('mgid', 'proxyJoin'), 1n | (1n << 17n))
  assert.equal(saCodecs.ServiceRecord.mask('data64'), 3n << 35n)
  const [a, b] = [
    { dlid: 4, slid: 1 },
    { dlid: 4, slid: 2 },
  ].map(record => codec.parse(codec.emit(record)))
  assert.ok(codec.matches(a!, b!, codec.mask('dlid')))
  assert.ok(!codec.matches(a!, b!, codec.mask('dlid', 'slid')))
})

test('a value that does not fit is named', () => {
  assert.throws(() => smCodecs.PortInfo.emit({ lid: 0x10000 }), /^RangeError: lid is number 65536/)
  assert.throws(() => smCodecs.GUIDInfo.emit({ guids: Array(9).fill(1n) }), /^RangeError: guids has 9 elements$/)
})
